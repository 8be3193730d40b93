"""artsel-ray chooses, for each user, the artwork of a title that this user would most like."""
