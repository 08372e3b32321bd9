/* What it takes to go on beyond a run's end. */
#define _GNU_SOURCE /* asprintf */
#include "train/extend.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* One of the texts that `record` joins, and what follows it in *at; false: it is no such text. */
static bool take_extension(const char **at, int64_t *step, int32_t *from, int32_t *to) {
  char begin[96], text[96];
  (void)snprintf(begin, sizeof begin, "%.95s", *at);
  if (sscanf(begin, "step %" SCNd64 ": %" SCNd32 " to %" SCNd32, step, from, to) != 3) return false;
  const int length = snprintf(text, sizeof text, "step %" PRId64 ": %" PRId32 " to %" PRId32 " epochs", *step, *from, *to);
  if (strncmp(begin, text, (size_t)length) != 0) return false;
  *at += length;
  const bool more = strncmp(*at, "; ", 2) == 0 && (*at)[2];
  if (more) *at += 2;
  return more || !**at;
}

/* Each goes on where the one before ended, and the last one to what the recipe now has. */
static NitiStatus check_record(const NitiRun *run) {
  int64_t step = 0, last = 0;
  int32_t from = 0, to = 0, epochs = 0;
  const char *at = run->extensions;
  bool good = true;
  for (; good && at && *at; last = step, epochs = to) {
    good = take_extension(&at, &step, &from, &to) && step >= last && step <= run->step && from > 0 && to > from &&
           (epochs == 0 || from == epochs);
  }
  if (good && (!run->extensions || epochs == run->recipe->epochs)) return NITI_OK;
  return niti_fail(
      NITI_ERROR_FORMAT,
      "%s: __metadata__: 'extensions' is '%.64s' (expected such as 'step 30: 3 to 8 epochs', joined by '; ', steps up to "
      "%" PRId64 ", and epochs that rise to the recipe's %" PRId32 ")",
      run->recipe->source, run->extensions, run->step, run->recipe->epochs);
}

NitiStatus niti_run_extend(NitiRun *run) {
  NITI_TRY(check_record(run));
  const int32_t from = run->recipe->epochs, to = run->options.epochs > 0 ? run->options.epochs : from;
  const char *why = niti_recipe_depends_on_length(run->recipe);
  if (to < from)
    return niti_fail(NITI_ERROR_ARGUMENT, "epochs: %d, but the run has %d (expected more: a run is extended, never cut)", to,
                     from);
  if (to > from && why)
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "epochs: the run cannot be extended: %s, so that a run of %d epochs would have trained the first %" PRId64
                     " steps otherwise (expected rates at positions in epochs or steps)",
                     why, to, run->step);
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
