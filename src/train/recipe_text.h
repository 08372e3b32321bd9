/* Internal to recipes: the words for their choices, in the order of the enumerations, and the resolved text. */
#ifndef NITI_TRAIN_RECIPE_TEXT_H
#define NITI_TRAIN_RECIPE_TEXT_H

#include "train/recipe.h"

extern const char *const niti_recipe_kinds[];
extern const char *const niti_recipe_types[];
extern const char *const niti_recipe_defaults[];
extern const char *const niti_recipe_crops[];
extern const char *const niti_recipe_fits[];
extern const char *const niti_recipe_bad_files[];
extern const char *const niti_recipe_losses[];
extern const char *const niti_recipe_roundings[];

/* Sets recipe->text from its other members. */
NitiStatus niti_recipe_resolve(NitiRecipe *recipe);

#endif
