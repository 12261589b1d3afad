"""The commands of `looped`: one module each. Its function `main` gets the words after the command's name."""
