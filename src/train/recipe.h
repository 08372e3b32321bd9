/* A training recipe: YAML -> everything that decides a run's bits. docs/recipe-reference.md has the format. */
#ifndef NITI_TRAIN_RECIPE_H
#define NITI_TRAIN_RECIPE_H

#include "data/dataset.h"
#include "model/lower.h"
#include "train/average.h"
#include "train/rate.h"

/* The data set of runs that specify none. */
typedef enum NitiDefaultData { NITI_DEFAULT_NONE = 0, NITI_DEFAULT_FASHION_MNIST } NitiDefaultData;

enum { NITI_MU_PLACES = 6 };

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
  bool test_flip; /* scoring adds the logits of each image's mirror */
  NitiLossKind loss;
  int64_t smoothing; /* of labels, in billionths */
  NitiRounding round_activation, round_error;
  int32_t clip_activation, clip_error; /* NitiRoundingRecord.clip */
  const NitiOptimizer *optimizer;      /* `update.kind` */
  NitiSchedule mu;                     /* update `niti`: in millionths */
  NitiRate rate;                       /* the others */
  int64_t momentum, decay;             /* in billionths */
  int64_t clip_norm;                   /* likewise; 0: gradients are not clipped by their norm */
  bool nesterov;
  NitiAveraging average;
} NitiRecipe;

typedef struct NitiLearningRate {
  const char *key;
  int64_t value;
  int places;
} NitiLearningRate;

/* recipe: a built-in's name or a file. sets: `key.path=value` strings applied in order over the file's values
 * (messages name the offending string). */
NitiStatus niti_recipe_load(NitiRecipe **out, const char *recipe, const char *const *sets, int set_count);
/* From text, e.g. a checkpoint's. model_text, if not NULL, is the description to use instead of looking `model` up by name. */
NitiStatus niti_recipe_parse(NitiRecipe **out, const char *text, const char *source, const char *const *sets, int set_count,
                             const char *model_text);
void niti_recipe_close(NitiRecipe *recipe);
/* Places the schedules in a run of `steps` steps; NITI_ERROR_ARGUMENT where their positions descend there. */
NitiStatus niti_recipe_place(NitiRecipe *recipe, int64_t steps_per_epoch, int64_t steps);
/* After niti_recipe_place, of a new run: NITI_ERROR_ARGUMENT where a position, not a share, is the step of the one before. */
NitiStatus niti_recipe_check_distinct(const NitiRecipe *recipe);
/* What the run's length changes, as a clause for messages, or NULL: a longer run trains the same steps first. */
const char *niti_recipe_depends_on_length(const NitiRecipe *recipe);
/* mu of a step, from 0, without its fraction; before niti_recipe_place only of step 0. */
int niti_recipe_mu(const NitiRecipe *recipe, int64_t step);
/* The same, or NITI_ERROR_UNSUPPORTED where it is not whole, with what cannot be. */
NitiStatus niti_recipe_whole_mu(int *out, const NitiRecipe *recipe, int64_t step, const char *what);
/* The same of any update: value / 10^places, under the key that `update` has for it, "mu" or "lr". */
NitiLearningRate niti_recipe_rate(const NitiRecipe *recipe, int64_t step);
/* Sets the scalars that a program binds for a step on so many images. */
void niti_recipe_scalars(int64_t scalars[NITI_SCALARS_MAX], const NitiRecipe *recipe, const NitiProgram *program, int64_t step,
                         int32_t images);
/* How the recipe's model is lowered. */
NitiLowerOptions niti_recipe_lowering(const NitiRecipe *recipe, int32_t batch, bool training);
const char *const *niti_builtin_recipes(void);

#endif
