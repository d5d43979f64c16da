"""What ``status``, ``explain`` and the page tell alike: facts from the store, judged by the core's rules, and words."""
