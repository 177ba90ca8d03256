"""Claims that wait in queues: reading, following and leaving, for programs and for people."""
