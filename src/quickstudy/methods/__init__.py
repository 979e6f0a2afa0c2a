"""Methods: meta-learners, each a composition in the shape of its paper's equation."""
