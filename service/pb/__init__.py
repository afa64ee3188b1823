"""Generated from proto/ by `python -m service.protogen`; never edited."""
