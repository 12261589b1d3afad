"""The commands of `looped`, a module each, with a function `main` that takes the words after the command's name."""
