"""What is done with a network as it is: its names, wrappers, copies, slices and sizes."""
