/* An image folder whose names and lists are the input: the names of two classes and of their images, and classes.txt, as fields
 * (fuzz.h). The images are sound. */
#include "data/dataset.h"
#include "fuzz.h"

/* A grey PNG of 1x1. */
static const uint8_t png[] = {0x89, 'P',  'N',  'G',  '\r', '\n', 0x1a, '\n', 0,    0,    0,    13,  'I',  'H',  'D',  'R',  0,
                              0,    0,    1,    0,    0,    0,    1,    8,    0,    0,    0,    0,   0x3a, 0x7e, 0x9b, 0x55, 0,
                              0,    0,    10,   'I',  'D',  'A',  'T',  0x78, 0x9c, 0x63, 0x68, 0,   0,    0,    0x82, 0,    0x81,
                              0x77, 0xcd, 0x72, 0xb6, 0,    0,    0,    0,    'I',  'E',  'N',  'D', 0xae, 0x42, 0x60, 0x82};

/* A field as a name that a folder can hold. */
static void take_name(char name[64], const uint8_t **data, size_t *size) {
  const uint8_t *field;
  size_t length = fuzz_field(&field, data, size);
  if (length > 40) length = 40;
  (void)snprintf(name, 64, "%.*s", (int)length, (const char *)field);
  for (char *p = name; *p; ++p)
    if (*p == '/') *p = '_';
  if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) (void)snprintf(name, 64, "a");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const splits[] = {"set/train", "set/test"};
  char path[256], name[64], image[64];
  const uint8_t *text;
  const NitiDataRequest request = {.size = {1, 2, 2, 1}};
  /* Asking which kind it is costs more than all the rest. */
  const NitiDataOptions options = {.kind = fuzz_rarely(data, size) ? NITI_DATA_AUTO : NITI_DATA_FOLDER};
  NitiDataset *set;
  FUZZ_CHECK(fuzz_remove(fuzz_at("set")));
  (void)niti_system.mkdir(fuzz_at("set"), 0777);
  for (int s = 0; s < 2; ++s) (void)niti_system.mkdir(fuzz_at(splits[s]), 0777);
  for (int class = 0; class < 2; ++class) {
    take_name(name, &data, &size);
    take_name(image, &data, &size);
    for (int s = 0; s < 2; ++s) {
      (void)snprintf(path, sizeof path, "%s/%s", splits[s], name);
      (void)niti_system.mkdir(fuzz_at(path), 0777);
      (void)snprintf(path, sizeof path, "%s/%s/%s", splits[s], name, image);
      (void)fuzz_put(path, png, sizeof png);
      (void)snprintf(path, sizeof path, "%s/%s/i.png", splits[s], name);
      (void)fuzz_put(path, png, sizeof png);
    }
  }
  const size_t bytes = fuzz_field(&text, &data, &size);
  if (bytes) (void)fuzz_put("set/classes.txt", text, bytes);
  if (fuzz_status(niti_dataset_open(&set, fuzz_at("set"), &options, &request)) != NITI_OK) return 0;
  for (int32_t i = 0; i < niti_dataset_classes(set); ++i)
    FUZZ_CHECK(niti_dataset_class_name(set, i) && niti_dataset_class_label(set, i));
  for (int i = 0; niti_dataset_note(set, i); ++i) FUZZ_CHECK(!strchr(niti_dataset_note(set, i), '\n'));
  uint8_t pixels[4];
  for (int64_t i = 0; i < niti_dataset_count(set, NITI_TRAIN); ++i)
    (void)fuzz_status(niti_dataset_read(set, NITI_TRAIN, i, true, 0, 0, pixels));
  niti_dataset_close(set);
  return 0;
}
