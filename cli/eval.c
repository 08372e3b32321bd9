/* niti eval: the score of a network on a data set's test split, class by class where asked for. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli.h"
#include "platform/file.h"
#include "platform/text.h"
#include "train/inference.h"

typedef struct Arguments {
  DeviceOptions device;
  const char *data, *split, *confusion;
  FlipOptions flip;
  bool per_class, json;
} Arguments;

static const Option options[] = {
    TEXT("data", data, "DIR", "the data set's folder (default: the one that the network was trained on)"),
    CHOICE("split", split, "test|validation|train", "what to score: test (the default), validation or train"),
    FLAG("per-class", per_class, "also how many images of each class were recognised, and what they were taken for"),
    TEXT("confusion", confusion, "FILE", "write how often each class was taken for which: a table (.csv) or a picture (.png)"),
    FLIP_OPTIONS(flip),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_eval = {
    "eval",
    "NETWORK [--data DIR] [OPTIONS]",
    "score a network on a test set",
    "niti eval runs/first --data /usr/share/datasets/fashion-mnist --per-class --confusion confusion.png",
    "NETWORK",
    options,
    run};

/* ---- the confusion matrix ---- */

static bool is_named(const char *path, const char *end) {
  const size_t length = strlen(path), tail = strlen(end);
  return length > tail && strcasecmp(path + length - tail, end) == 0;
}

/* RFC 4180: in quotes, those within doubled. */
static void put_quoted(FILE *to, const char *name) {
  char *text = niti_text_escaped(name);
  fputc('"', to);
  for (const char *at = text ? text : ""; *at; ++at) {
    if (*at == '"') fputc('"', to);
    fputc(*at, to);
  }
  fputc('"', to);
  free(text);
}

static void put_table(FILE *to, const NitiModel *model, const NitiConfusion *c) {
  fputs("\"true class\"", to);
  for (int32_t k = 0; k < c->classes; ++k) {
    fputc(',', to);
    put_quoted(to, niti_model_class_name(model, k));
  }
  fputc('\n', to);
  for (int32_t i = 0; i < c->classes; ++i) {
    put_quoted(to, niti_model_class_name(model, i));
    for (int32_t k = 0; k < c->classes; ++k) fprintf(to, ",%" PRId64, c->counts[(size_t)i * (size_t)c->classes + (size_t)k]);
    fputc('\n', to);
  }
}

static NitiStatus make_table(uint8_t **out, size_t *size, const NitiModel *model, const NitiConfusion *c) {
  NitiTextMemory memory;
  if (niti_text_open(&memory)) put_table(memory.to, model, c);
  *out = (uint8_t *)niti_text_close(&memory, size);
  return *out ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for a confusion matrix");
}

static NitiStatus make_picture(uint8_t **out, size_t *size, const NitiConfusion *c) {
  NitiPicture picture;
  NITI_TRY(niti_confusion_picture(&picture, c));
  const NitiStatus status = niti_picture_png(out, size, &picture);
  niti_picture_close(&picture);
  return status;
}

/* Releases the file. */
static NitiStatus write_confusion(NitiFile *file, const NitiModel *model, const NitiConfusion *c) {
  uint8_t *bytes = NULL;
  size_t size = 0;
  NitiStatus status =
      is_named(niti_file_path(file), ".csv") ? make_table(&bytes, &size, model, c) : make_picture(&bytes, &size, c);
  if (status == NITI_OK) status = niti_file_write(file, bytes, size);
  free(bytes);
  if (status == NITI_OK) return niti_file_commit(file, NULL);
  niti_file_discard(file);
  return status;
}

/* ---- class by class ---- */

typedef struct ClassScore {
  int64_t images, correct, found; /* of the class; of them right; images of any class taken for it */
  int32_t taken_for;              /* the other class that its images are most often taken for */
  int64_t taken;                  /* how often; 0: never */
} ClassScore;

static ClassScore class_score(const NitiConfusion *c, int32_t label) {
  ClassScore s = {.correct = c->counts[(size_t)label * (size_t)c->classes + (size_t)label]};
  for (int32_t k = 0; k < c->classes; ++k) {
    const int64_t as = c->counts[(size_t)label * (size_t)c->classes + (size_t)k];
    s.images += as;
    s.found += c->counts[(size_t)k * (size_t)c->classes + (size_t)label];
    if (k == label || as <= s.taken) continue;
    s.taken = as;
    s.taken_for = k;
  }
  return s;
}

static void print_share(int64_t part, int64_t whole) {
  if (whole > 0)
    printf("  %7.2f %%", percent(part, whole));
  else
    printf("  %9s", "-");
}

static void print_classes(const NitiModel *model, const NitiConfusion *c) {
  printf("%8s  %8s  %9s  %9s  class, and what else its images are most often taken for\n", "images", "correct", "recall",
         "precision");
  for (int32_t i = 0; i < c->classes; ++i) {
    const ClassScore s = class_score(c, i);
    printf("%8" PRId64 "  %8" PRId64, s.images, s.correct);
    print_share(s.correct, s.images);
    print_share(s.correct, s.found);
    printf("  ");
    print_name(stdout, niti_model_class_name(model, i));
    if (s.taken > 0) {
      printf(": ");
      print_name(stdout, niti_model_class_name(model, s.taken_for));
      printf(" (%" PRId64 ")", s.taken);
    }
    putchar('\n');
  }
}

static json_t *share_json(int64_t part, int64_t whole) { return whole > 0 ? json_real(percent(part, whole)) : json_null(); }

static json_t *classes_json(const NitiModel *model, const NitiConfusion *c) {
  json_t *array = json_array();
  for (int32_t i = 0; i < c->classes; ++i) {
    const ClassScore s = class_score(c, i);
    json_array_append_new(
        array, json_pack("{s:i, s:o, s:I, s:I, s:I, s:o, s:o}", "class", i, "name", json_name(niti_model_class_name(model, i)),
                         "images", (json_int_t)s.images, "correct", (json_int_t)s.correct, "found", (json_int_t)s.found, "recall",
                         share_json(s.correct, s.images), "precision", share_json(s.correct, s.found)));
  }
  return array;
}

/* ---- the command ---- */

static bool on_progress(void *context, const NitiProgress *p) {
  ProgressLine *line = context;
  if (p->kind == NITI_PROGRESS_DATA) progress_data(line, p->text, p->batch, p->batches);
  if (p->kind == NITI_PROGRESS_TEST) progress_data(line, "testing batches", p->batch, p->batches);
  if (p->kind == NITI_PROGRESS_NOTE || p->kind == NITI_PROGRESS_WARNING) {
    progress_clear(line);
    say("%s", p->text);
  }
  return true;
}

static const char *const split_words[] = {"train", "test", "validation"}, *const split_names[] = {"training", "test",
                                                                                                  "validation"};

/* The split of that word; NULL: test. False: there is none. */
static bool find_split(NitiSplit *out, const char *word) {
  *out = NITI_TEST;
  for (int i = 0; word && i < 3; ++i) {
    if (strcmp(word, split_words[i]) != 0) continue;
    *out = (NitiSplit)i;
    return true;
  }
  return !word;
}

static void say_whose(const NitiDataFacts *data) {
  if (!data->run_path || data->of_run) return;
  if (strcmp(data->path, data->run_path) == 0)
    say("%s has changed since the run began: its %s images are not the data of the run", data->path, split_names[data->scored]);
  else
    say("%s is not the data of the run, which was trained on %s: its %s images are others", data->path, data->run_path,
        split_names[data->scored]);
}

static json_t *score_json(const NitiLocation *network, const NitiModel *model, const NitiScore *score, const char *hash) {
  const NitiDataFacts *data = niti_model_data(model);
  json_t *facts = data_json(data);
  const char *word = split_words[data->scored];
  char accuracy[32], loss[32];
  (void)snprintf(accuracy, sizeof accuracy, "%s_accuracy", word);
  (void)snprintf(loss, sizeof loss, "%s_loss", word);
  json_object_set_new(facts, "of_run", json_boolean(data->of_run));
  return json_pack("{s:s, s:f, s:f, s:s, s:I, s:I, s:b, s:o, s:s, s:b, s:o}", "split", word, accuracy,
                   percent(score->correct, score->images), loss, nats(*score), "loss_unit", "nats", "correct",
                   (json_int_t)score->correct, "images", (json_int_t)score->images, "flip", niti_model_flips(model), "checkpoint",
                   json_name(network->path), "hash", hash, "trained", network->kind == NITI_LOCATED_CHECKPOINT, "data", facts);
}

static int report(const NitiLocation *network, const NitiModel *model, const NitiScore *score, const Arguments *given) {
  char hash[65];
  const NitiConfusion *c = niti_model_confusion_named(model);
  if (niti_model_hash(model, hash) != NITI_OK) return fail();
  say_whose(niti_model_data(model));
  if (given->json) {
    json_t *object = score_json(network, model, score, hash);
    const char *tuning = niti_model_tuning(model);
    json_object_set_new(object, "tuning", tuning ? json_name(tuning) : json_null());
    if (given->per_class) json_object_set_new(object, "per_class", classes_json(model, c));
    return print_json(object);
  }
  printf("%s accuracy %.2f %% (%" PRId64 " of %" PRId64 "), loss %.4f nats%s\n", split_names[niti_model_data(model)->scored],
         percent(score->correct, score->images), score->correct, score->images, nats(*score),
         niti_model_flips(model) ? ", of images and their mirrors" : "");
  data_print(stdout, niti_model_data(model));
  if (niti_model_tuning(model)) printf("%-10s %s\n", "tuning", niti_model_tuning(model));
  if (given->per_class) print_classes(model, c);
  return EXIT_OK;
}

/* What can be known before the work begins: whether there are too many classes, and whether the file can be written. */
static NitiStatus prepare(NitiFile **file, const NitiLocation *network, const NitiModel *model, const Arguments *given) {
  if ((given->per_class || given->confusion) && niti_model_classes(model) > NITI_CONFUSION_CLASSES_MAX)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "%s: %d classes are too many for --per-class and --confusion (expected at most %d)",
                     network->path, niti_model_classes(model), NITI_CONFUSION_CLASSES_MAX);
  return given->confusion ? niti_file_open(file, given->confusion) : NITI_OK;
}

static NitiStatus score_all(NitiScore *out, NitiModel *model, const Arguments *given, NitiSplit split, NitiFile *file) {
  ProgressLine line;
  progress_start(&line);
  niti_model_watch(model, on_progress, &line);
  const NitiStatus status = niti_model_evaluate_split(model, out, given->data, split);
  progress_clear(&line);
  if (status == NITI_OK && file) return write_confusion(file, model, niti_model_confusion_named(model));
  niti_file_discard(file);
  return status;
}

static int evaluate(const NitiLocation *network, const Arguments *given, NitiSplit split) {
  const NitiDevice device = device_of(&given->device);
  NitiModel *model = NULL;
  NitiFile *file = NULL;
  NitiScore score;
  NitiStatus status = niti_model_open_at(&model, network, &device);
  flip_set(model, &given->flip);
  if (status == NITI_OK) status = prepare(&file, network, model, given);
  if (status == NITI_OK) status = score_all(&score, model, given, split, file);
  const int result = status == NITI_OK ? report(network, model, &score, given) : fail();
  niti_model_close(model);
  return result;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_eval, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_eval, count == 0 ? "a network is missing" : "one network at a time");
  const int clash = flip_check(&command_eval, &given.flip);
  if (clash != -1) return clash;
  NitiSplit split;
  if (!find_split(&split, given.split))
    return usage_error(&command_eval, "--split: '%s' is not test, validation or train", given.split);
  if (given.confusion && !is_named(given.confusion, ".csv") && !is_named(given.confusion, ".png"))
    return usage_error(&command_eval, "--confusion: '%s' ends neither in .csv nor in .png", given.confusion);
  NitiLocation network;
  if (!locate_weights(&network, argv[1])) return fail();
  const int result = evaluate(&network, &given, split);
  niti_location_close(&network);
  return result;
}
