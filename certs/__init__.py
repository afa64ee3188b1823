"""Makes, renews and lists the certificates of a sluice deployment; only the recipe is code, no key is committed."""

from certs.authority import ensure_certificates
from certs.listing import Entry, inventory

__all__ = ["Entry", "ensure_certificates", "inventory"]
