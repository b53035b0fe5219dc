"""Who may come in and who is next: requests, what a client sends, the queue, owners of files. The only room that knows
of HTTP.
"""
