"""A Flower app that does nothing: four numbers go there and back."""
