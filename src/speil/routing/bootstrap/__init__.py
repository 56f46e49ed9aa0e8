"""Where the first peers come from: dns, http, static addresses, peers known from before."""
