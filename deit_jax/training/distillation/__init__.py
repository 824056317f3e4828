"""What the teacher teaches: the losses of equations 2 and 3, the teacher, its view of images."""
