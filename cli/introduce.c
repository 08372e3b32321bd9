/* Introduces a run, as human-readable output and as JSON, and names its folder if none is given. */
#include "introduce.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "platform/file.h"

void introduce_recipe(FILE *to, const NitiRecipe *recipe) {
  fprintf(to, "%-10s %s (", "recipe", recipe->name);
  print_name(to, recipe->source);
  fprintf(to, "): batch %d, %d epochs, seed %" PRIu64 "\n", recipe->batch, recipe->epochs, recipe->seed);
  fflush(to);
}

static int64_t images_of(const NitiRunFacts *facts) {
  return facts->data.scored == NITI_VALIDATION ? facts->data.validation_images : facts->data.test_images;
}

/* "testing    after every 2nd epoch: 100 of 1000 validation images; ..." */
static void print_testing(FILE *to, const NitiRunFacts *facts) {
  const bool validates = facts->data.scored == NITI_VALIDATION;
  const char *split = validates ? "validation" : "test";
  fprintf(to, "%-10s ", "testing");
  if (facts->test_every > 1)
    fprintf(to, "after every %d epochs, ", facts->test_every);
  else
    fputs("after every epoch, ", to);
  if (facts->scored_images < images_of(facts)) fprintf(to, "%" PRId64 " of ", facts->scored_images);
  fprintf(to, "%" PRId64 " %s images%s, which choose best.safetensors; ", images_of(facts), split,
          facts->flip ? " and their mirrors" : "");
  fputs(!validates                    ? "so `best` is chosen on the test split (data.validation avoids that)\n"
        : facts->data.test_images > 0 ? "the test split once, at the end\n"
                                      : "there is no test split\n",
        to);
}

static json_t *testing_json(const NitiRunFacts *facts) {
  const int64_t all = images_of(facts);
  const bool limited = facts->scored_images < all;
  return json_pack("{s:s, s:i, s:o, s:I}", "chosen_on", facts->data.scored == NITI_VALIDATION ? "validation" : "test", "every",
                   facts->test_every, "limit", limited ? json_integer(facts->scored_images) : json_null(), "of", (json_int_t)all);
}

void introduce_run(FILE *to, const NitiProgress *start) {
  const NitiRunFacts *facts = start->run;
  fprintf(to, "%-10s %s, input %dx%dx%d: %" PRId64 " parameters, %" PRId64 " multiply-adds per image\n", "model", facts->model,
          facts->input[0], facts->input[1], facts->input[2], facts->parameters, facts->multiply_adds);
  data_print(to, &facts->data);
  print_testing(to, facts);
  fprintf(to, "%-10s %s, on %s\n", "device", facts->device, facts->hardware);
  if (facts->tuning) fprintf(to, "%-10s %s\n", "tuning", facts->tuning);
  fprintf(to, "%-10s %" PRId64 ", %" PRId64 " per epoch\n", "steps", start->steps, facts->steps_per_epoch);
  fprintf(to, "%-10s ", "run");
  print_name(to, facts->folder);
  fputc('\n', to);
  fflush(to);
}

json_t *introduce_json(const NitiProgress *start) {
  const NitiRunFacts *facts = start->run;
  return json_pack("{s:o, s:o, s:s, s:s, s:[i,i,i], s:I, s:I, s:s, s:s, s:i, s:i, s:I, s:I, s:o, s:o, s:b}", "tuning",
                   facts->tuning ? json_name(facts->tuning) : json_null(), "run", json_name(facts->folder), "recipe",
                   facts->recipe, "model", facts->model, "input", facts->input[0], facts->input[1], facts->input[2], "parameters",
                   (json_int_t)facts->parameters, "multiply_adds", (json_int_t)facts->multiply_adds, "device", facts->device,
                   "hardware", facts->hardware, "batch", facts->batch, "epochs", facts->epochs, "steps", (json_int_t)start->steps,
                   "steps_per_epoch", (json_int_t)facts->steps_per_epoch, "data", data_json(&facts->data), "testing",
                   testing_json(facts), "flip", facts->flip);
}

static void format_name(RunName *out, const char *recipe, int number) {
  char date[16] = "", suffix[16] = "";
  const time_t now = time(NULL);
  struct tm day;
  if (localtime_r(&now, &day)) (void)strftime(date, sizeof date, "%Y-%m-%d", &day);
  if (number > 1) (void)snprintf(suffix, sizeof suffix, "-%d", number);
  (void)snprintf(out->path, sizeof out->path, RUNS "/%s-%s%s", date, recipe, suffix);
}

NitiStatus run_name(RunName *out, const char *recipe, bool claim) {
  *out = (RunName){.claimed = claim};
  if (claim) out->made_runs = mkdir(RUNS, 0777) == 0;
  for (int number = 1;; ++number) {
    format_name(out, recipe, number);
    if (!claim && access(out->path, F_OK) != 0) return NITI_OK;
    if (claim && mkdir(out->path, 0777) == 0) {
      (void)niti_file_sync_entry(RUNS); /* both survive a power loss */
      (void)niti_file_sync_entry(out->path);
      return NITI_OK;
    }
    if (claim && errno != EEXIST) return niti_fail_errno(out->path, "make the folder");
  }
}

void run_name_release(const RunName *name) {
  if (name->claimed) (void)rmdir(name->path); /* one that holds anything stays */
  if (name->made_runs) (void)rmdir(RUNS);
}
