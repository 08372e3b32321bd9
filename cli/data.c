/* niti data: what a folder holds, and whether all of it can be read. */
#include <inttypes.h>
#include <stdlib.h>

#include "cli.h"
#include "data/dataset.h"

typedef struct Arguments {
  bool json;
} Arguments;

static const Option options[] = {JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_data = {"data",
                              "[DIR] [--json]",
                              "show what a data set's folder holds and check every file in it",
                              "niti data /usr/share/datasets/fashion-mnist",
                              "DIR",
                              options,
                              run};

/* The findings, for human-readable output and JSON. */
typedef struct Findings {
  const char *path;
  NitiDataset *dataset;
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  char sha256[NITI_SPLITS][65]; /* "": no such split */
  int64_t bad;                  /* files that cannot be read */
} Findings;

/* ---- progress ---- */

static bool draw_progress(void *context, const char *what, int64_t done, int64_t total) {
  progress_data(context, what, done, total);
  return true;
}

/* ---- JSON ---- */

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

static json_t *class_texts(const NitiDataset *dataset, const char *(*text_of)(const NitiDataset *, int32_t)) {
  json_t *array = json_array();
  const int32_t classes = niti_dataset_classes(dataset);
  for (int32_t i = 0; i < classes; ++i) {
    const char *text = text_of(dataset, i);
    char number[16];
    (void)snprintf(number, sizeof number, "%d", i);
    json_array_append_new(array, json_name(text ? text : number));
  }
  return array;
}

static json_t *note_texts(const NitiDataset *dataset) {
  json_t *array = json_array();
  const char *note;
  for (int i = 0; (note = niti_dataset_note(dataset, i)) != NULL; ++i)
    json_array_append_new(array, json_string(note)); /* text already */
  return array;
}

static json_t *bad_texts(const NitiDataset *dataset) {
  json_t *array = json_array();
  for (int split = 0; split < NITI_SPLITS; ++split) {
    for (int64_t i = 0; i < niti_dataset_bad_count(dataset, (NitiSplit)split); ++i)
      json_array_append_new(array, json_string(niti_dataset_bad(dataset, (NitiSplit)split, i)));
  }
  return array;
}

static int print_object(const Findings *f) {
  const NitiDataset *d = f->dataset;
  const NitiShape s = niti_dataset_shape(d);
  json_t *object =
      json_pack("{s:o, s:s, s:s, s:[i,i,i], s:i}", "path", json_name(f->path), "kind", niti_dataset_kind(d), "type",
                niti_data_type_name(niti_dataset_type(d)), "shape", s.h, s.w, s.c, "classes", niti_dataset_classes(d));
  for (int split = 0; split < NITI_SPLITS; ++split) {
    static const char *const keys[NITI_SPLITS] = {"train_images", "test_images", "validation_images"};
    static const char *const hash_keys[NITI_SPLITS] = {"train_sha256", "test_sha256", "validation_sha256"};
    json_object_set_new(object, keys[split], json_integer(niti_dataset_count(d, (NitiSplit)split)));
    if (f->sha256[split][0]) json_object_set_new(object, hash_keys[split], json_string(f->sha256[split]));
  }
  json_object_set_new(object, "mean", channel_values(f->mean, s.c));
  json_object_set_new(object, "std", channel_values(f->std, s.c));
  json_object_set_new(object, "mean_millionths", channel_integers(f->mean, s.c));
  json_object_set_new(object, "std_millionths", channel_integers(f->std, s.c));
  json_object_set_new(object, "class_names", class_texts(d, niti_dataset_class_name));
  json_object_set_new(object, "class_labels", class_texts(d, niti_dataset_class_label));
  json_object_set_new(object, "notes", note_texts(d));
  json_object_set_new(object, "bad_files", bad_texts(d));
  return print_json(object);
}

/* ---- human-readable output ---- */

static void print_channels(const char *name, const int32_t *millionths, int32_t channels) {
  printf("%-10s", name);
  for (int32_t c = 0; c < channels; ++c) printf(" %.6f", (double)millionths[c] * 1e-6);
  puts(" (of full scale, per channel; exact to a millionth)");
}

static void print_classes(const NitiDataset *dataset) {
  enum { SHOWN = 20 };
  const int32_t classes = niti_dataset_classes(dataset);
  printf("classes    %d", classes);
  for (int32_t i = 0; i < classes && i < SHOWN; ++i) {
    const char *label = niti_dataset_class_label(dataset, i);
    if (!label) continue;
    fputs(i ? ", " : ": ", stdout);
    print_name(stdout, label);
  }
  puts(classes > SHOWN ? ", ..." : "");
}

static void print_text(const Findings *f) {
  const NitiDataset *d = f->dataset;
  const NitiShape s = niti_dataset_shape(d);
  const bool folder = niti_dataset_is_folder(d);
  const char *note;
  printf("path       ");
  print_name(stdout, f->path);
  printf("\nkind       %s (%s)\nshape      %dx%dx%d (height, width, channels%s)\n", niti_dataset_kind(d),
         niti_data_type_name(niti_dataset_type(d)), s.h, s.w, s.c,
         folder ? "; the first image's, to which the others are fitted for mean and std" : "");
  print_classes(d);
  for (int split = 0; split < NITI_SPLITS; ++split) {
    const int64_t count = niti_dataset_count(d, (NitiSplit)split);
    const char *hash = f->sha256[split];
    if (count > 0 || split != NITI_VALIDATION)
      printf("%-10s %" PRId64 " images%s%s\n", niti_split_name((NitiSplit)split), count, *hash ? ", SHA-256 " : "", hash);
  }
  if (niti_dataset_count(d, NITI_TRAIN) > 0) {
    print_channels("mean", f->mean, s.c);
    print_channels("std", f->std, s.c);
  }
  for (int i = 0; (note = niti_dataset_note(d, i)) != NULL; ++i) printf("%-10s %s\n", "note", note);
  for (int split = 0; split < NITI_SPLITS; ++split) {
    for (int64_t i = 0; i < niti_dataset_bad_count(d, (NitiSplit)split); ++i)
      printf("%-10s %s\n", "bad", niti_dataset_bad(d, (NitiSplit)split, i));
  }
}

/* ---- the command ---- */

static NitiStatus find_out(Findings *f) {
  for (int split = 0; split < NITI_SPLITS; ++split) {
    if (niti_dataset_count(f->dataset, (NitiSplit)split) < 1) continue;
    NITI_TRY(niti_dataset_survey(f->dataset, (NitiSplit)split));
    const int64_t bad = niti_dataset_bad_count(f->dataset, (NitiSplit)split);
    f->bad += bad;
    const NitiStatus status = niti_dataset_hash(f->dataset, (NitiSplit)split, f->sha256[split]);
    if (status == NITI_ERROR_FILE && bad > 0)
      f->sha256[split][0] = 0; /* a bad file cannot even be opened: the split has no sum */
    else
      NITI_TRY(status);
  }
  return niti_dataset_count(f->dataset, NITI_TRAIN) > 0 ? niti_dataset_statistics(f->dataset, f->mean, f->std) : NITI_OK;
}

static int show(Findings *f, ProgressLine *line, bool json) {
  const NitiStatus status = find_out(f);
  progress_clear(line);
  if (status != NITI_OK) return fail();
  int code = EXIT_OK;
  if (json)
    code = print_object(f);
  else
    print_text(f);
  if (f->bad == 0 || code != EXIT_OK) return code;
  fflush(stdout);
  say("%s: %" PRId64 " image file%s cannot be read", f->path, f->bad, f->bad == 1 ? "" : "s");
  return EXIT_FAILED;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_data, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count > 1) return usage_error(&command_data, "one folder at a time");
  Findings findings = {.path = count == 1 ? argv[1] : niti_dataset_default()};
  if (!findings.path)
    return usage_error(&command_data,
                       "a folder is missing (the default, Debian's package dataset-fashion-mnist, is not installed)");
  ProgressLine line;
  progress_start(&line);
  const NitiDataRequest request = {.watch = {draw_progress, &line}};
  const NitiStatus status = niti_dataset_open(&findings.dataset, findings.path, NULL, &request);
  const int result = status == NITI_OK ? show(&findings, &line, given.json) : (progress_clear(&line), fail());
  niti_dataset_close(findings.dataset);
  return result;
}
