/* niti predict: the most probable classes of images, from files, folders or standard input. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "data/dataset.h"
#include "platform/file.h"
#include "platform/path.h"
#include "train/inference.h"

typedef struct Arguments {
  DeviceOptions device;
  FlipOptions flip;
  int64_t top;
  bool json;
} Arguments;

static const Option options[] = {
    NUMBER("top", top, "K", "how many classes to name (default 5)", 1, 65536),
    FLIP_OPTIONS(flip),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_predict = {"predict",
                                 "NETWORK IMAGE|DIR|-... [OPTIONS]",
                                 "classify images (JPEG or PNG files, folders of them, or - for one on standard input)",
                                 "niti predict runs/first photo.jpg --top 3",
                                 "NETWORK FILE",
                                 options,
                                 run};

/* What one run of the command works with. */
typedef struct Prediction {
  NitiModel *model;
  int32_t classes, top;
  int8_t *logits;
  int32_t *millionths, *order;
  json_t *images, *failures; /* NULL: text */
  int code;                  /* the exit code so far */
} Prediction;

static void sort_best_first(Prediction *p) {
  for (int32_t i = 0; i < p->classes; ++i) p->order[i] = i;
  for (int32_t i = 0; i < p->top; ++i) { /* the first `top` only; of equals the lower class, as in training */
    int32_t best = i;
    for (int32_t j = i + 1; j < p->classes; ++j) {
      const int8_t a = p->logits[p->order[j]], b = p->logits[p->order[best]];
      if (a > b || (a == b && p->order[j] < p->order[best])) best = j;
    }
    const int32_t taken = p->order[best];
    p->order[best] = p->order[i];
    p->order[i] = taken;
  }
}

static double percent_of(const Prediction *p, int32_t label) { return (double)p->millionths[label] / 10000.0; }

static void print_result(const Prediction *p, const char *name) {
  print_name(stdout, name);
  putchar('\n');
  for (int32_t i = 0; i < p->top; ++i) {
    printf("  %6.2f %%  ", percent_of(p, p->order[i]));
    print_name(stdout, niti_model_class_name(p->model, p->order[i]));
    putchar('\n');
  }
}

static void add_result(const Prediction *p, const char *name) {
  json_t *classes = json_array();
  for (int32_t i = 0; i < p->top; ++i) {
    const int32_t label = p->order[i];
    json_array_append_new(classes, json_pack("{s:i, s:o, s:f}", "class", label, "name",
                                             json_name(niti_model_class_name(p->model, label)), "percent", percent_of(p, label)));
  }
  json_array_append_new(p->images, json_pack("{s:o, s:o}", "image", json_name(name), "top", classes));
}

/* An image that cannot be read: the others' results come all the same. */
static void report_failure(Prediction *p, const char *name) {
  fflush(stdout);
  say("%s", niti_error());
  p->code = EXIT_FAILED;
  if (p->failures)
    json_array_append_new(p->failures, json_pack("{s:o, s:o}", "image", json_name(name), "error", json_string(niti_error())));
}

static void report(Prediction *p, const char *name, NitiStatus status, int32_t exponent) {
  if (status != NITI_OK) {
    report_failure(p, name);
    return;
  }
  niti_probabilities(p->millionths, p->logits, exponent, p->classes);
  sort_best_first(p);
  if (p->images)
    add_result(p, name);
  else
    print_result(p, name);
}

static void predict_file(Prediction *p, const char *path) {
  int32_t exponent = 0;
  const NitiStatus status = niti_model_predict_file(p->model, p->logits, &exponent, path);
  report(p, path, status, exponent);
}

static void predict_input(Prediction *p) {
  static const char name[] = "standard input";
  enum { BYTES_MAX = 1 << 28 };
  char *bytes = NULL;
  size_t size = 0;
  int32_t exponent = 0;
  NitiStatus status = niti_file_read_as(&bytes, &size, "/dev/stdin", name, BYTES_MAX);
  if (status == NITI_OK) status = niti_model_predict_bytes(p->model, p->logits, &exponent, (const uint8_t *)bytes, size, name);
  report(p, name, status, exponent);
  free(bytes);
}

static void predict_folder(Prediction *p, const char *path) {
  NitiPaths images = {0};
  char *unread = NULL;
  if (niti_images_find(&images, &unread, path) != NITI_OK) {
    report_failure(p, path);
  } else if (images.count == 0) {
    (void)niti_fail(NITI_ERROR_FILE, "%s: expected at least one .jpg, .jpeg or .png file", path);
    report_failure(p, path);
  }
  if (unread) say("note: %s: not read: %s", path, unread);
  for (size_t i = 0; i < images.count; ++i) predict_file(p, images.path[i]);
  niti_paths_close(&images);
  free(unread);
}

static int predict_all(Prediction *p, char **paths, int count, bool json) {
  p->classes = niti_model_classes(p->model);
  if (p->top > p->classes) p->top = p->classes;
  p->logits = malloc((size_t)p->classes);
  p->millionths = malloc((size_t)p->classes * sizeof *p->millionths);
  p->order = malloc((size_t)p->classes * sizeof *p->order);
  if (!p->logits || !p->millionths || !p->order) {
    return fail_with(EXIT_FAILED, "out of memory for %d classes", p->classes);
  }
  p->images = json ? json_array() : NULL;
  p->failures = json ? json_array() : NULL;
  for (int i = 0; i < count; ++i) {
    bool folder; /* where the system does not know, reading it says why */
    if (strcmp(paths[i], "-") == 0)
      predict_input(p);
    else if (niti_path_is_dir(&folder, paths[i]) == NITI_OK && folder)
      predict_folder(p, paths[i]);
    else
      predict_file(p, paths[i]);
  }
  const int printed = json ? print_json(json_pack("{s:o, s:o}", "predictions", p->images, "failures", p->failures)) : EXIT_OK;
  return printed != EXIT_OK ? printed : p->code;
}

static int run(int argc, char **argv) {
  Arguments given = {.top = 5};
  int count;
  const int code = options_parse(&command_predict, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count < 2) return usage_error(&command_predict, count == 0 ? "a network is missing" : "an image is missing");
  const int clash = flip_check(&command_predict, &given.flip);
  if (clash != -1) return clash;
  const NitiDevice where = device_of(&given.device);
  Prediction prediction = {.top = (int32_t)given.top};
  NitiLocation network;
  if (!locate_weights(&network, argv[1])) return fail();
  const NitiStatus opened = niti_model_open_at(&prediction.model, &network, &where);
  niti_location_close(&network);
  if (opened != NITI_OK) return fail();
  flip_set(prediction.model, &given.flip);
  const int result = predict_all(&prediction, argv + 2, count - 1, given.json);
  niti_model_close(prediction.model);
  free(prediction.logits);
  free(prediction.millionths);
  free(prediction.order);
  return result;
}
