"""The Hugging Face Space's repository, as a mirror of this one: laid out, checked, published."""
