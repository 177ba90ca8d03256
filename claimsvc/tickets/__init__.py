"""Claims that wait: joining a queue, starting tickets at its pace, and telling those who watch them."""
