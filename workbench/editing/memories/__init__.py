"""What the methods share that put a memory beside a module: where it is, what it reads, how its router is made."""
