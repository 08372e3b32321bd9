"""The cases in cases/: a model, a recipe and the shape of a synthetic data set each."""

import os

from .model import read_model, read_recipe

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
NAMES = sorted(name[:-len(".recipe.yaml")] for name in os.listdir(FOLDER) if name.endswith(".recipe.yaml"))


def recipe_path(name):
    return os.path.join(FOLDER, f"{name}.recipe.yaml")


def read_case(name):
    """(model, recipe, data) of a case; data: train and test (numbers of images), height and width of the raw images;
    perhaps type, format and constant (a channel of which all values are the same)."""
    recipe = read_recipe(recipe_path(name))
    model = read_model(os.path.join(FOLDER, recipe["model"]))
    return model, recipe, read_recipe(os.path.join(FOLDER, f"{name}.data.yaml"))
