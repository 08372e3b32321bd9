/* What niti train shows of a run: a line of progress, a line or an object per epoch, and the result. */
#define _GNU_SOURCE /* asprintf */
#include "train_view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "introduce.h"
#include "platform/path.h"
#include "train/run_folder.h"

static double rate(int64_t images, int64_t nanoseconds) {
  return nanoseconds > 0 ? (double)images * 1e9 / (double)nanoseconds : 0;
}

static void format_duration(char *text, size_t size, double s) {
  const int64_t t = (int64_t)(s + 0.5);
  if (t >= 3600) {
    (void)snprintf(text, size, "%" PRId64 "h%02" PRId64 "m", t / 3600, t / 60 % 60);
  } else {
    (void)snprintf(text, size, "%" PRId64 "m%02" PRId64 "s", t / 60, t % 60);
  }
}

enum { BAR_CELLS = 12, BAR_COLUMNS = 60 };

/* "[====>       ] " of the whole run; nothing on a narrow terminal. */
static void format_bar(char bar[BAR_CELLS + 4], int64_t done, int64_t all) {
  bar[0] = 0;
  if (all < 1 || terminal_columns() < BAR_COLUMNS) return;
  const int filled = (int)(BAR_CELLS * done / all);
  char cells[BAR_CELLS + 1];
  for (int i = 0; i < BAR_CELLS; ++i) cells[i] = i < filled ? '=' : i == filled ? '>' : ' ';
  cells[BAR_CELLS] = 0;
  (void)snprintf(bar, BAR_CELLS + 4, "[%s] ", cells);
}

/* "epoch 0m12s, run 1m40s left" */
static void format_left(char *text, size_t size, const NitiProgress *p) {
  char epoch[32], run[32];
  text[0] = 0;
  if (p->run_left < 0) return;
  format_duration(epoch, sizeof epoch, (double)p->epoch_left * 1e-9);
  format_duration(run, sizeof run, (double)p->run_left * 1e-9);
  (void)snprintf(text, size, "  epoch %s, run %s left", epoch, run);
}

static double epoch_rate(const View *view, const NitiProgress *p) {
  return rate(p->images - view->images, p->nanoseconds - view->nanoseconds);
}

static void format_line(char *line, size_t size, const View *view, const NitiProgress *p) {
  char score[64] = "", left[96] = "", bar[BAR_CELLS + 4] = "";
  format_left(left, sizeof left, p);
  if (p->kind == NITI_PROGRESS_TEST) {
    (void)snprintf(line, size, "epoch %d/%d  %s %" PRId64 "/%" PRId64 "%s", p->epoch, p->epochs,
                   p->kind == NITI_PROGRESS_TEST ? "testing" : "reading images", p->batch, p->batches, left);
    return;
  }
  if (p->train.images > 0)
    (void)snprintf(score, sizeof score, "  loss %.4f  acc %.1f %%", nats(p->train), percent(p->train.correct, p->train.images));
  format_bar(bar, p->step, p->steps);
  (void)snprintf(line, size, "%sepoch %d/%d batch %" PRId64 "/%" PRId64 "%s%s  %.0f images/s", bar, p->epoch, p->epochs, p->batch,
                 p->batches, left, score, epoch_rate(view, p));
}

/* Elsewhere than on a terminal twice a minute. */
static void draw_line(View *view, const NitiProgress *p) {
  char line[256];
  if (!progress_is_due(&view->line, INT64_C(30000000000))) return;
  format_line(line, sizeof line, view, p);
  progress_draw(&view->line, line);
}

/* "  NAME loss 0.1234 nats  accuracy 97.00 %"; nothing where no image was scored. */
static void print_score(FILE *to, const char *name, NitiScore s) {
  if (s.images > 0) fprintf(to, "  %s loss %.4f nats  accuracy %.2f %%", name, nats(s), percent(s.correct, s.images));
}

static void print_epoch(const View *view, const NitiProgress *p) {
  FILE *to = output_prose();
  fprintf(to, "epoch %d/%d", p->epoch, p->epochs);
  print_score(to, "train", p->train);
  print_score(to, "validation", p->validation);
  print_score(to, "test", p->test);
  if (p->test.images == 0 && p->validation.images == 0) fputs("  not tested", to);
  if (p->best.images > 0) fprintf(to, "  best %.2f %%", percent(p->best.correct, p->best.images));
  fprintf(to, "  %.0f images/s\n", epoch_rate(view, p));
  output_flush();
}

/* Figures over no images yet are null. */
static json_t *accuracy_json(NitiScore s) { return s.images > 0 ? json_real(percent(s.correct, s.images)) : json_null(); }
static json_t *loss_json(NitiScore s) { return s.images > 0 ? json_real(nats(s)) : json_null(); }

typedef struct Scores {
  NitiScore train, validation, test, best, best_test;
} Scores;

static json_t *scores_json(const View *view, const Scores *s) {
  const bool validates = view->scored == NITI_VALIDATION;
  json_t *object = json_pack("{s:s, s:o, s:o}", "loss_unit", "nats", "train_loss", loss_json(s->train), "train_accuracy",
                             accuracy_json(s->train));
  if (validates)
    json_object_update_new(object,
                           json_pack("{s:o, s:o, s:o}", "validation_loss", loss_json(s->validation), "validation_accuracy",
                                     accuracy_json(s->validation), "best_validation_accuracy", accuracy_json(s->best)));
  json_object_update_new(object,
                         json_pack("{s:o, s:o, s:o}", "test_loss", loss_json(s->test), "test_accuracy", accuracy_json(s->test),
                                   "best_test_accuracy", accuracy_json(validates ? s->best_test : s->best)));
  return object;
}

static void end_epoch(View *view, const NitiProgress *p) {
  if (!view->quiet) print_epoch(view, p);
  if (view->stream) {
    json_t *object = scores_json(view, &(Scores){p->train, p->validation, p->test, p->best, p->best_test});
    json_object_update_new(object, json_pack("{s:i, s:I, s:f}", "epoch", p->epoch, "step", (json_int_t)p->step,
                                             "images_per_second", epoch_rate(view, p)));
    (void)print_event("epoch", object);
  }
  view->images = p->images;
  view->nanoseconds = p->nanoseconds;
}

/* Once, when the first steps have shown how long they take. */
static void tell_time(View *view, const NitiProgress *p) {
  char all[32];
  if (view->timed || p->steps_here < 3 || p->nanoseconds < 1000000000) return;
  view->timed = true;
  progress_clear(&view->line);
  format_duration(all, sizeof all, (double)p->run_left * 1e-9);
  fprintf(output_prose(), "%-10s about %s left, testing included, at %.0f images/s\n", "time", all,
          rate(p->images, p->nanoseconds));
  output_flush();
}

static void tell_warning(View *view, const char *text) {
  progress_clear(&view->line);
  fprintf(stderr, "niti: %s\n", text);
  if (!view->warnings) view->warnings = json_array();
  json_array_append_new(view->warnings, json_string(text));
  if (view->stream) (void)print_event("warning", json_pack("{s:s}", "text", text));
}

bool view_progress(void *context, const NitiProgress *p) {
  View *view = context;
  if (p->kind == NITI_PROGRESS_START) view->running = true;
  if (view->silent) return signals_caught() == 0;
  if (p->kind == NITI_PROGRESS_START) {
    view->run = introduce_json(p);
    view->folder = open(p->run->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    view->batches = p->batches;
    view->scored = p->run->data.scored;
    progress_clear(&view->line);
    if (!view->quiet) introduce_run(output_prose(), p);
    if (view->stream) (void)print_event("start", json_deep_copy(view->run));
    return true;
  }
  if (p->kind == NITI_PROGRESS_BATCH && !view->quiet) tell_time(view, p);
  if (p->kind == NITI_PROGRESS_DATA) {
    if (!view->quiet && !view->run) progress_data(&view->line, p->text, p->batch, p->batches);
  } else if (p->kind == NITI_PROGRESS_WARNING) {
    tell_warning(view, p->text);
  } else if (!view->quiet) {
    if (p->kind == NITI_PROGRESS_BATCH || p->kind == NITI_PROGRESS_TEST) {
      draw_line(view, p);
    } else {
      progress_clear(&view->line);
      if (p->kind == NITI_PROGRESS_NOTE) fprintf(stderr, "niti: %s\n", p->text);
    }
  }
  if (p->kind == NITI_PROGRESS_EPOCH) {
    progress_clear(&view->line);
    end_epoch(view, p);
  }
  return signals_caught() == 0;
}

/* Whether the folder at the path is another than the run's, or none; unknown is no. */
static bool is_lost(const View *view, const char *folder) {
  struct stat began, now;
  if (view->folder < 0 || fstat(view->folder, &began) != 0) return false;
  if (stat(folder, &now) != 0) return errno == ENOENT || errno == ENOTDIR;
  return began.st_dev != now.st_dev || began.st_ino != now.st_ino;
}

/* The folder is rank 0's: this rank may not see it, and does not know the name that rank 0 has chosen. */
static char *way_on_of_others(const char *folder) {
  char *text = NULL;
  const bool written = *folder ? asprintf(&text, "`niti train --resume %s` continues", folder) >= 0
                               : asprintf(&text, "`niti train --resume` continues from the last checkpoint") >= 0;
  return written ? text : NULL;
}

char *view_way_on(const View *view, const char *folder, const char *why) {
  char *obstacle = NULL, *text = NULL;
  bool resumable = true;
  if (view->silent) return way_on_of_others(folder);
  if (is_lost(view, folder)) return NULL;
  if (niti_run_folder_survey(&resumable, &obstacle, folder, why) == NITI_OK && !resumable) return NULL;
  const bool written = obstacle ? asprintf(&text, "remove %s, then `niti train --resume %s` continues", obstacle, folder) >= 0
                                : asprintf(&text, "`niti train --resume %s` continues", folder) >= 0;
  free(obstacle);
  return written ? text : NULL;
}

json_t *view_warnings(const View *view) { return view->warnings ? json_incref(view->warnings) : json_array(); }

/* The averaged weights' file. Returns whether its hash could be taken. */
static bool averaged_hash(char hash[65], const char *folder) {
  char *path = NULL;
  const NitiStatus status = niti_path_join(&path, folder, "averaged.safetensors");
  const bool taken = status == NITI_OK && niti_checkpoint_file_hash(path, hash) == NITI_OK;
  free(path);
  return taken;
}

static bool has_averaged(const NitiTrainResult *r) { return r->averaged_images > 0 || r->averaged_validation_correct > 0; }

static void add_averaged(json_t *object, const NitiTrainResult *r, const char *folder) {
  char hash[65];
  const NitiScore test = {.correct = r->averaged_correct, .images = r->averaged_images};
  const NitiScore validation = {.correct = r->averaged_validation_correct, .images = r->validation.images};
  json_object_set_new(object, "averaged_test_accuracy", accuracy_json(test));
  if (r->chosen_on == NITI_VALIDATION) json_object_set_new(object, "averaged_validation_accuracy", accuracy_json(validation));
  json_object_set_new(object, "averaged_hash", averaged_hash(hash, folder) ? json_string(hash) : json_null());
}

static void print_averaged(const NitiTrainResult *r, const char *folder) {
  char hash[65];
  fputs("averaged weights:", stdout);
  if (r->chosen_on == NITI_VALIDATION)
    printf(" validation accuracy %.2f %%", percent(r->averaged_validation_correct, r->validation.images));
  if (r->averaged_images > 0) printf(" test accuracy %.2f %%", percent(r->averaged_correct, r->averaged_images));
  if (averaged_hash(hash, folder)) printf(" (averaged.safetensors, hash %s)", hash);
  putchar('\n');
}

json_t *view_result_json(const View *view, const NitiTrainResult *r, const char *folder, bool stopped) {
  /* epochs: complete ones; max_steps may end a run within the last one begun */
  const int64_t begun = view->batches > 0 ? (r->steps + view->batches - 1) / view->batches : 0;
  json_t *object = scores_json(view, &(Scores){r->train, r->validation, r->test, r->best, r->best_test});
  json_object_update_new(
      object, json_pack("{s:o, s:s, s:i, s:I, s:I, s:o, s:f, s:I, s:I, s:b, s:O}", "run", json_name(folder), "hash", r->hash,
                        "epochs", r->epochs, "epochs_begun", (json_int_t)begun, "steps", (json_int_t)r->steps, "best_epoch",
                        r->best.images > 0 ? json_integer(r->best_epoch) : json_null(), "images_per_second",
                        rate(r->images, r->nanoseconds), "shift_predictions", (json_int_t)r->shift_predictions, "shift_retries",
                        (json_int_t)r->shift_retries, "interrupted", stopped, "data", json_object_get(view->run, "data")));
  json_object_set(object, "testing", json_object_get(view->run, "testing"));
  json_object_set(object, "flip", json_object_get(view->run, "flip"));
  if (has_averaged(r)) add_averaged(object, r, folder);
  json_object_set_new(object, "warnings", view_warnings(view));
  return object;
}

/* The scores of the last and the best weights, and on which images. */
static void print_scores(const View *view, const NitiTrainResult *r) {
  const bool validates = r->chosen_on == NITI_VALIDATION;
  const NitiScore last = validates ? r->validation : r->test;
  const json_t *limit = json_object_get(json_object_get(view->run, "testing"), "limit");
  const char *split = validates ? "validation" : "test";
  printf("%s accuracy %.2f %% (best %.2f %% after epoch %d, chosen on the %s split%s), %" PRId64 " steps, %.0f images/s\n", split,
         percent(last.correct, last.images), percent(r->best.correct, r->best.images), r->best_epoch, split,
         validates ? "" : " itself", r->steps, rate(r->images, r->nanoseconds));
  if (json_is_true(json_object_get(view->run, "flip"))) puts("every score is of images and their mirrors (evaluation.flip)");
  if (json_is_integer(limit))
    printf("scored on %" PRId64 " of %" JSON_INTEGER_FORMAT " %s images, evenly spread (--test-limit)\n", last.images,
           json_integer_value(json_object_get(json_object_get(view->run, "testing"), "of")), split);
  if (!validates || r->test.images == 0) return;
  const double final = percent(r->test.correct, r->test.images);
  if (r->best_test.images > 0)
    printf("test accuracy %.2f %% of the final weights, %.2f %% of the best (last.safetensors, best.safetensors)\n", final,
           percent(r->best_test.correct, r->best_test.images));
  else
    printf("test accuracy %.2f %% of the final weights (last.safetensors); those of the best epoch are not tested\n", final);
}

void view_result(const View *view, const NitiTrainResult *r, const char *folder) {
  print_scores(view, r);
  if (has_averaged(r)) print_averaged(r, folder);
  printf("hash %s\ncheckpoints in ", r->hash);
  print_name(stdout, folder);
  printf(": last.safetensors%s%s\n", r->best_lost ? "" : ", best.safetensors", has_averaged(r) ? ", averaged.safetensors" : "");
}
