"""Past days decided again, by the model that served or by another, and compared with what was served."""
