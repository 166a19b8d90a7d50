"""Handle networks as they are: names, wrappers, copies, slices and sizes."""
