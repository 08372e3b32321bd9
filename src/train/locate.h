/* Resolves the name of a network. Every command accepts the same forms:
 *
 *   lenet5, lenet5-mnist        a built-in model or recipe; takes precedence over a file of that name (./lenet5)
 *   FILE.yaml                   a recipe (it has a key `model`) or a model (it has `layers`), whatever the file is called
 *   FILE.safetensors            a checkpoint, whatever the file is called
 *   RUN, RUN:last, RUN:7        a run's folder: its best checkpoint, its last one, or the one kept after epoch 7; the last one
 *                               serves as the best only where no best.safetensors is there, of whatever kind */
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

/* Resolves `name`, reading only as much as identifies its kind. NITI_ERROR_ARGUMENT: no such name;
 * NITI_ERROR_FILE: a file that cannot be read, a folder without a checkpoint; NITI_ERROR_FORMAT: a file of another kind. */
NitiStatus niti_locate(NitiLocation *out, const char *name);
void niti_location_close(NitiLocation *location);

/* Its recipe: a checkpoint's own; for a model, one of defaults with the model's name. */
NitiStatus niti_location_recipe(NitiRecipe **out, const NitiLocation *location);
/* The recipe that a checkpoint holds; `source` is what messages call it. */
NitiStatus niti_checkpoint_recipe(NitiRecipe **out, const NitiCheckpoint *checkpoint, const char *source);
/* The version of the arithmetic that wrote it: "1.0" where it does not say, as the first did not. */
const char *niti_checkpoint_arithmetic(const NitiCheckpoint *checkpoint);
/* Whether that version gives this one's bits in everything but the training of batch norm. */
bool niti_arithmetic_infers_alike(const char *version);
/* Its weights, with the values `recipe` and `model`. An untrained network's weights are initialised from its recipe's seed. */
NitiStatus niti_location_weights(NitiCheckpoint **out, const NitiLocation *location);

#endif
