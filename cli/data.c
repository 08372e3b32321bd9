/* niti data: what a folder holds. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "data/dataset.h"

typedef struct Arguments {
  bool json;
} Arguments;

static const Option options[] = {JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_data = {
    "data", "[DIR] [--json]", "say what a data set's folder holds", "niti data /usr/share/datasets/fashion-mnist", "DIR", options,
    run};

static json_t *channel_values(const int32_t *millionths, int32_t channels) {
  json_t *array = json_array();
  for (int32_t c = 0; c < channels; ++c) json_array_append_new(array, json_real((double)millionths[c] * 1e-6));
  return array;
}

static json_t *channel_integers(const int32_t *millionths, int32_t channels) {
  json_t *array = json_array();
  for (int32_t c = 0; c < channels; ++c) json_array_append_new(array, json_integer(millionths[c]));
  return array;
}

static json_t *class_names(const NitiDataset *dataset) {
  json_t *array = json_array();
  const int32_t classes = niti_dataset_classes(dataset);
  for (int32_t i = 0; i < classes; ++i) {
    const char *name = niti_dataset_class_name(dataset, i);
    char number[16];
    (void)snprintf(number, sizeof number, "%d", i);
    json_array_append_new(array, json_text(name ? name : number));
  }
  return array;
}

static void print_channels(const char *name, const int32_t *millionths, int32_t channels) {
  printf("%-8s", name);
  for (int32_t c = 0; c < channels; ++c) printf(" %.6f", (double)millionths[c] * 1e-6);
  puts(" (of full scale, a channel; exact to a millionth)");
}

static int show(const NitiDataset *dataset, const char *path, bool json) {
  const NitiShape s = niti_dataset_shape(dataset);
  const int32_t classes = niti_dataset_classes(dataset);
  const int64_t train = niti_dataset_count(dataset, NITI_TRAIN), test = niti_dataset_count(dataset, NITI_TEST);
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  if (niti_dataset_statistics(dataset, mean, std) != NITI_OK) return fail();
  if (json) {
    return print_json(json_pack("{s:o, s:s, s:[i,i,i], s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "path", json_text(path), "kind",
                                niti_dataset_kind(dataset), "shape", s.h, s.w, s.c, "classes", classes, "train_images",
                                (json_int_t)train, "test_images", (json_int_t)test, "mean", channel_values(mean, s.c), "std",
                                channel_values(std, s.c), "mean_millionths", channel_integers(mean, s.c), "std_millionths",
                                channel_integers(std, s.c), "class_names", class_names(dataset)));
  }
  const bool folder = strcmp(niti_dataset_kind(dataset), "folder") == 0;
  printf("path     ");
  print_name(stdout, path);
  printf("\nkind     %s\nshape    %dx%dx%d (height, width, channels%s)\nclasses  %d", niti_dataset_kind(dataset), s.h, s.w, s.c,
         folder ? "; the first image's, to which the others are fitted for mean and std" : "", classes);
  for (int32_t i = 0; i < classes && i < 20; ++i) {
    const char *name = niti_dataset_class_name(dataset, i);
    if (!name) continue;
    fputs(i ? ", " : ": ", stdout);
    print_name(stdout, name);
  }
  printf("%s\ntrain    %" PRId64 " images\ntest     %" PRId64 " images\n", classes > 20 ? ", ..." : "", train, test);
  print_channels("mean", mean, s.c);
  print_channels("std", std, s.c);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_data, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count > 1) return usage_error(&command_data, "one folder at a time");
  const char *path = count == 1 ? argv[1] : niti_dataset_default();
  if (!path)
    return usage_error(&command_data,
                       "a folder is missing (the default, Debian's package dataset-fashion-mnist, is not installed)");
  const NitiDataOptions any = {.kind = NITI_DATA_AUTO};
  NitiDataset *dataset = NULL;
  if (niti_dataset_open(&dataset, path, &any, NULL) != NITI_OK) return fail();
  const int result = show(dataset, path, given.json);
  niti_dataset_close(dataset);
  return result;
}
