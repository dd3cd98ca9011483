"""What the tills said: the spool, the append-only log, and everything an auditor asks of it. Never touches the network."""
