/* Inside recipes: the words of their choices, in the order of the enumerations, and the resolved text. */
#ifndef NITI_TRAIN_RECIPE_TEXT_H
#define NITI_TRAIN_RECIPE_TEXT_H

#include "train/recipe.h"

extern const char *const niti_recipe_kinds[],
    *const niti_recipe_defaults[], *const niti_recipe_crops[], *const niti_recipe_fits[], *const niti_recipe_losses[],
                                                                                              *const niti_recipe_roundings[],
                                                                                                  *const niti_recipe_updates[];

/* Sets recipe->text from its other members. */
NitiStatus niti_recipe_resolve(NitiRecipe *recipe);

#endif
