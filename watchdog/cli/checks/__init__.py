"""Tests the installation for ``check``, and changes nothing. Each check returns findings; ``view`` prints them."""
