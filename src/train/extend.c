/* What it takes to go on beyond a run's end. */
#define _GNU_SOURCE /* asprintf */
#include "train/extend.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static NitiStatus set_epochs(NitiRun *run, int32_t epochs) {
  char set[32];
  NitiRecipe *changed;
  (void)snprintf(set, sizeof set, "epochs=%" PRId32, epochs);
  NITI_TRY(niti_recipe_parse(&changed, run->recipe->text, run->recipe->source, (const char *const[]){set}, 1,
                             run->recipe->model->text));
  niti_recipe_close(run->recipe);
  run->recipe = changed;
  return NITI_OK;
}

/* The texts of a loaded checkpoint are its own, so the run gets a copy. */
static NitiStatus record(NitiRun *run, int32_t from, int32_t to) {
  const char *before = run->extensions;
  char *text;
  if (from == to && !before) return NITI_OK;
  const int length = from == to ? asprintf(&text, "%s", before)
                                : asprintf(&text, "%s%sstep %" PRId64 ": %" PRId32 " to %" PRId32 " epochs", before ? before : "",
                                           before ? "; " : "", run->step, from, to);
  if (length < 0) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a run's extensions");
  run->extensions = run->extensions_owned = text;
  return NITI_OK;
}

NitiStatus niti_run_extend(NitiRun *run) {
  const int32_t from = run->recipe->epochs, to = run->options.epochs > 0 ? run->options.epochs : from;
  const char *what = niti_recipe_depends_on_length(run->recipe);
  if (to < from)
    return niti_fail(NITI_ERROR_ARGUMENT, "epochs: %d, but the run has %d (expected more: a run is extended, never cut)", to,
                     from);
  if (to > from && what)
    return niti_fail(
        NITI_ERROR_ARGUMENT,
        "epochs: the run cannot be extended: %s has positions in shares of the run, so that a run of %d epochs would have "
        "trained the first %" PRId64 " steps otherwise (expected positions in epochs or steps)",
        what, to, run->step);
  NITI_TRY(record(run, from, to));
  run->extended = to > from;
  return run->extended ? set_epochs(run, to) : NITI_OK;
}

NitiStatus niti_run_extend_opened(NitiRun *run) {
  if (!run->extended) return NITI_OK;
  if (run->steps < run->steps_per_epoch * run->recipe->epochs)
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "epochs: the run cannot be extended: its recipe's max_steps ends it after step %" PRId64, run->steps);
  if (run->complete && run->step == run->epoch * run->steps_per_epoch) run->train = (NitiScore){0}; /* the next epoch's */
  run->complete = false;
  return NITI_OK;
}
