"""The demonstration: two models of handwritten digits behind the gateway; needs the extra `demo` where it trains."""
