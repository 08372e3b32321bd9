/* With what a device, or the replay of its log, begins: step, learning rate and seed. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/update.h"
#include "export/import.h"

/* A whole number from 0 to `most`, and nothing else. */
static bool take_number(uint64_t *out, const char *word, uint64_t most) {
  char *end;
  errno = 0;
  *out = strtoull(word, &end, 10);
  return word[0] >= '0' && word[0] <= '9' && *end == 0 && errno == 0 && *out <= most;
}

static NitiStatus take_value(uint64_t *out, const NitiCheckpoint *checkpoint, const char *key, uint64_t most) {
  const char *text = niti_checkpoint_get(checkpoint, key);
  if (!text || take_number(out, text, most)) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: %s is '%.60s' (expected a whole number from 0 to %" PRIu64 ")",
                   niti_checkpoint_source(checkpoint), key, text, most);
}

/* Places the recipe's schedule in the run that trained the checkpoint, if one did, and finds the run's last step. */
static NitiStatus place_in_run(NitiDeviceStart *out, NitiRecipe *recipe, const NitiCheckpoint *checkpoint) {
  uint64_t done = 0, images = 0;
  NITI_TRY(take_value(&done, checkpoint, "step", UINT32_MAX));
  NITI_TRY(take_value(&images, checkpoint, "train_set_images", INT32_MAX));
  if (done == 0 || images == 0) return NITI_OK;
  const int64_t each = ((int64_t)images + recipe->batch - 1) / recipe->batch, all = each * recipe->epochs;
  out->placed = true;
  out->position = (int64_t)done - 1;
  return niti_recipe_place(recipe, each, recipe->max_steps > 0 && recipe->max_steps < all ? recipe->max_steps : all);
}

NitiStatus niti_device_start(NitiDeviceStart *out, NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *what) {
  uint64_t step = 0, mu;
  *out = (NitiDeviceStart){.scheduled = recipe->mu.count > 1, .seed = recipe->seed};
  NITI_TRY(place_in_run(out, recipe, checkpoint));
  out->own = niti_checkpoint_get(checkpoint, NITI_DEVICE_MU) != NULL;
  if (!out->own) NITI_TRY(niti_recipe_whole_mu(&out->mu, recipe, out->position, what));
  mu = (uint64_t)out->mu;
  NITI_TRY(take_value(&step, checkpoint, NITI_DEVICE_STEP, UINT32_MAX));
  NITI_TRY(take_value(&mu, checkpoint, NITI_DEVICE_MU, NITI_MU_MAX));
  NITI_TRY(take_value(&out->seed, checkpoint, NITI_DEVICE_SEED, UINT64_MAX));
  out->step = (uint32_t)step;
  out->mu = (int)mu;
  return NITI_OK;
}
