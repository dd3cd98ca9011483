"""What the tills said: the spool, the append-only log, all that an auditor asks of it. Never touches the network."""
