/* Finds the network that a name stands for. Whatever names one is accepted everywhere:
 *
 *   lenet5, lenet5-mnist        a built-in model or recipe; before a file of that name, which ./lenet5 means
 *   FILE.yaml                   a recipe (it has a key `model`) or a model (it has `layers`), whatever the file is called
 *   FILE.safetensors            a checkpoint, whatever the file is called
 *   RUN, RUN:last, RUN:7        a run's folder: its best checkpoint, its last one, or the one kept after epoch 7 */
#ifndef NITI_TRAIN_LOCATE_H
#define NITI_TRAIN_LOCATE_H

#include "io/checkpoint.h"
#include "train/recipe.h"

typedef enum NitiLocated { NITI_LOCATED_MODEL = 0, NITI_LOCATED_RECIPE, NITI_LOCATED_CHECKPOINT } NitiLocated;

typedef struct NitiLocation {
  NitiLocated kind;
  char *path; /* owned: the file, or the built-in's name */
  char *text; /* owned: the YAML there; NULL for a checkpoint */
} NitiLocation;

/* Looks for what `name` stands for, without reading more of it than says what it is. NITI_ERROR_ARGUMENT: no such name;
 * NITI_ERROR_FILE: a file that cannot be read, a folder without a checkpoint; NITI_ERROR_FORMAT: a file that is none of these. */
NitiStatus niti_locate(NitiLocation *out, const char *name);
void niti_location_close(NitiLocation *location);

/* The recipe there: a checkpoint's own; for a model alone one of defaults with the model's name. */
NitiStatus niti_location_recipe(NitiRecipe **out, const NitiLocation *location);
/* The weights there, with the values `recipe` and `model`. Those of a network that is not trained are the ones its recipe's seed
 * gives. */
NitiStatus niti_location_weights(NitiCheckpoint **out, const NitiLocation *location);

#endif
