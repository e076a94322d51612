"""`sangha doctor`: check each part of the installation and name the command or setting that repairs it."""
