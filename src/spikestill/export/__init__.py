"""Exchange with other tools; the only floor that uses NIR."""
