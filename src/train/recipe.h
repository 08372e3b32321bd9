/* A training recipe: YAML -> everything that decides a run's bits. docs/recipe-reference.md has the format. */
#ifndef NITI_TRAIN_RECIPE_H
#define NITI_TRAIN_RECIPE_H

#include "data/dataset.h"
#include "model/lower.h"

enum { NITI_SCHEDULE_MAX = 32 };

/* The data set of runs that specify none. */
typedef enum NitiDefaultData { NITI_DEFAULT_NONE = 0, NITI_DEFAULT_FASHION_MNIST } NitiDefaultData;

typedef struct NitiMuStep {
  int32_t epoch, mu; /* effective from this epoch, counted from 0 */
} NitiMuStep;

typedef struct NitiRecipe {
  char name[NITI_NAME_MAX];
  char *source; /* for messages */
  char *text;   /* the resolved recipe as YAML, every value written out; parses to this recipe again */
  NitiDescription *model;
  NitiDataOptions data; /* how images become inputs: see data/dataset.h */
  NitiDefaultData data_default;
  int32_t batch, epochs;
  int64_t max_steps; /* 0: no limit */
  uint64_t seed;
  NitiLossKind loss;
  NitiRounding round_activation, round_error;
  const NitiOptimizer *optimizer; /* `update.kind` */
  NitiMuStep mu[NITI_SCHEDULE_MAX];
  int32_t mu_count; /* at least 1; mu[0].epoch == 0, ascending */
} NitiRecipe;

/* recipe: a built-in's name or a file. sets: `key.path=value` strings applied in order over the file's values
 * (messages name the offending string). */
NitiStatus niti_recipe_load(NitiRecipe **out, const char *recipe, const char *const *sets, int set_count);
/* From text, e.g. a checkpoint's. model_text, if not NULL, is the description to use instead of looking `model` up by name. */
NitiStatus niti_recipe_parse(NitiRecipe **out, const char *text, const char *source, const char *const *sets, int set_count,
                             const char *model_text);
void niti_recipe_close(NitiRecipe *recipe);
/* The learning rate of an epoch. */
int niti_recipe_mu(const NitiRecipe *recipe, int32_t epoch);
/* How the recipe's model is lowered. */
NitiLowerOptions niti_recipe_lowering(const NitiRecipe *recipe, int32_t batch, bool training);
const char *const *niti_builtin_recipes(void);

#endif
