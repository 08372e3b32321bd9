/* niti predict: the most probable classes of images. */
#include <stdlib.h>

#include "cli.h"

typedef struct Arguments {
  DeviceOptions device;
  int64_t top;
  bool json;
} Arguments;

static const Option options[] = {
    NUMBER("top", top, "K", "how many classes to name (default 5)", 1, 65536),
    DEVICE_OPTIONS(device),
    JSON_OPTION,
    {0},
};

static int run(int argc, char **argv);
const Command command_predict = {"predict",
                                 "NETWORK IMAGE... [OPTIONS]",
                                 "name what is on images (JPEG or PNG)",
                                 "niti predict runs/first photo.jpg --top 3",
                                 "NETWORK FILE",
                                 options,
                                 run};

typedef struct Prediction {
  int8_t *logits;
  int32_t *millionths, *order;
  int32_t classes;
} Prediction;

static void sort_best_first(Prediction *p, int32_t top) {
  for (int32_t i = 0; i < p->classes; ++i) p->order[i] = i;
  for (int32_t i = 0; i < top; ++i) { /* the first `top` only; of equals the lower class, as in training */
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

static int print_one(NitiModel *model, const char *path, const Prediction *p, int32_t top, json_t *images) {
  if (!images) {
    print_name(stdout, path);
    putchar('\n');
  }
  json_t *classes = images ? json_array() : NULL;
  for (int32_t i = 0; i < top; ++i) {
    const int32_t label = p->order[i];
    const double share = (double)p->millionths[label] / 10000.0;
    if (classes) {
      json_array_append_new(classes, json_pack("{s:i, s:o, s:f}", "class", label, "name",
                                               json_text(niti_model_class_name(model, label)), "percent", share));
    } else {
      printf("  %6.2f %%  ", share);
      print_name(stdout, niti_model_class_name(model, label));
      putchar('\n');
    }
  }
  if (!images) return EXIT_OK;
  if (json_array_append_new(images, json_pack("{s:o, s:o}", "image", json_text(path), "top", classes)) == 0) return EXIT_OK;
  return fail_with(EXIT_FAILED, "out of memory for the result as JSON");
}

static int predict_all(NitiModel *model, char **paths, int count, int32_t top, bool json) {
  const int32_t classes = niti_model_classes(model);
  Prediction p = {.classes = classes};
  p.logits = malloc((size_t)classes);
  p.millionths = malloc((size_t)classes * sizeof *p.millionths);
  p.order = malloc((size_t)classes * sizeof *p.order);
  int code = p.logits && p.millionths && p.order ? EXIT_OK : fail_with(EXIT_FAILED, "out of memory for %d classes", classes);
  json_t *images = json && code == EXIT_OK ? json_array() : NULL;
  if (top > classes) top = classes;
  for (int i = 0; i < count && code == EXIT_OK; ++i) {
    int32_t exponent;
    if (niti_model_predict_file(model, p.logits, &exponent, paths[i]) != NITI_OK) {
      code = fail();
      break;
    }
    niti_probabilities(p.millionths, p.logits, exponent, classes);
    sort_best_first(&p, top);
    code = print_one(model, paths[i], &p, top, images);
  }
  if (json && code == EXIT_OK) code = print_json(json_pack("{s:O}", "predictions", images));
  json_decref(images);
  free(p.logits);
  free(p.millionths);
  free(p.order);
  return code;
}

static int run(int argc, char **argv) {
  Arguments given = {.top = 5};
  int count;
  const int code = options_parse(&command_predict, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count < 2) return usage_error(&command_predict, count == 0 ? "a checkpoint is missing" : "an image is missing");
  const NitiDevice where = device_of(&given.device);
  NitiModel *model = NULL;
  NitiLocation network;
  if (!locate_weights(&network, argv[1])) return fail();
  niti_location_close(&network);
  if (niti_model_open(&model, argv[1], &where) != NITI_OK) return fail();
  const int result = predict_all(model, argv + 2, count - 1, (int32_t)given.top, given.json);
  niti_model_close(model);
  return result;
}
