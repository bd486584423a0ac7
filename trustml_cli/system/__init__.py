"""What is asked of the machine: files, devices, memory, random numbers; and the two kinds of errors."""
