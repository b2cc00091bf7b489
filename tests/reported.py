"""What is odd about the items that reports are made of."""

HOSTILE = "</script><script>alert('title')</script><img src=x onerror=alert(1)> & \"quoted\""
DAMAGED, GONE, FAILED = "chess-01", "chess-02", "chess-03"
