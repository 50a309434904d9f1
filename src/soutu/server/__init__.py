"""The web page and the HTTP API over one gallery (extra ``server``)."""
