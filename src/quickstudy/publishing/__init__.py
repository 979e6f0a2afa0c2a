"""Publishing: run folders and models on the Hugging Face Hub."""
