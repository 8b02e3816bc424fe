"""From predictions to scores, their intervals and signature, and the files that servers take."""
