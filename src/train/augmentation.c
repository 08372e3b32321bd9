/* Recipes' keys for resized crops, cutout and colour jitter: docs/recipe-reference.md. */
#include "train/augmentation.h"

#include <inttypes.h>
#include <stdio.h>

/* As usual for photographs: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015. */
enum { SCALE_DEFAULT = 80000, ASPECT_LEAST_DEFAULT = 750000, ASPECT_MOST_DEFAULT = 1333333 };
enum { PLACES = 6 };

static const char *const mixups[] = {"0", "0.2", "1", NULL}; /* in the order of NitiMixup */
static const int32_t mixup_values[] = {0, 200000, 1000000};  /* the same in millionths */

/* `[least, most]`; the two in millionths. */
static NitiStatus read_range(int32_t out[2], const NitiYaml *node, const char *what, int32_t min, int32_t max) {
  if (node->kind != NITI_YAML_SEQUENCE || node->count != 2)
    return niti_yaml_fail(node, "%s: expected a list of two numbers, the least and the most", what);
  NITI_TRY(niti_yaml_millionths(&out[0], node->items[0], what, min, max));
  NITI_TRY(niti_yaml_millionths(&out[1], node->items[1], what, min, max));
  if (out[0] <= out[1]) return NITI_OK;
  return niti_yaml_fail(node, "%s: the first number is larger than the second (expected the least, then the most)", what);
}

static NitiStatus read_resized(NitiDataOptions *data, const NitiYaml *mapping) {
  const NitiYaml *scale = niti_yaml_get(mapping, "scale"), *aspect = niti_yaml_get(mapping, "aspect");
  const NitiYaml *crop = niti_yaml_get(mapping, "crop"), *pad = niti_yaml_get(mapping, "pad");
  if (!data->resized_crop && (scale || aspect))
    return niti_yaml_fail(scale ? scale : aspect, "data: %s: only crop resized has one (expected crop: resized)",
                          scale ? "scale" : "aspect");
  if (!data->resized_crop) return NITI_OK;
  if (data->type != NITI_UINT8)
    return niti_yaml_fail(crop, "data: crop: resized is for images (expected data.type uint8, found %s)",
                          niti_data_type_name(data->type));
  if (data->pad > 0) return niti_yaml_fail(pad, "data: pad: crop resized takes a part of the image itself (expected 0)");
  data->scale[0] = SCALE_DEFAULT;
  data->scale[1] = NITI_SCALE_MAX;
  data->aspect[0] = ASPECT_LEAST_DEFAULT;
  data->aspect[1] = ASPECT_MOST_DEFAULT;
  if (scale) NITI_TRY(read_range(data->scale, scale, "data: scale", 1, NITI_SCALE_MAX));
  return aspect ? read_range(data->aspect, aspect, "data: aspect", NITI_ASPECT_MIN, NITI_ASPECT_MAX) : NITI_OK;
}

static NitiStatus read_cutout(NitiDataOptions *data, const NitiYaml *mapping, NitiShape input) {
  const NitiYaml *node = niti_yaml_get(mapping, "cutout");
  const int32_t longer = input.h > input.w ? input.h : input.w;
  if (!node) return NITI_OK;
  NITI_TRY(niti_yaml_int(&data->cutout, node, "data: cutout", 0, INT32_MAX));
  if (data->cutout <= longer) return NITI_OK;
  return niti_yaml_fail(node, "data: cutout: a square of %d is larger than the network's input of %dx%d (expected 0 to %d)",
                        data->cutout, input.h, input.w, longer);
}

static NitiStatus read_strength(int32_t *out, const NitiDataOptions *data, const NitiYaml *mapping, const char *key,
                                NitiShape input, bool coloured) {
  const NitiYaml *node = niti_yaml_get(mapping, key);
  char what[32];
  if (!node) return NITI_OK;
  (void)snprintf(what, sizeof what, "data: %s", key);
  NITI_TRY(niti_yaml_millionths(out, node, what, 0, NITI_STRENGTH_MAX));
  if (*out == 0) return NITI_OK;
  if (data->type != NITI_UINT8)
    return niti_yaml_fail(node, "%s: colour jitter is for images (expected data.type uint8, found %s)", what,
                          niti_data_type_name(data->type));
  if (input.c == 3 || (input.c == 1 && !coloured)) return NITI_OK;
  return niti_yaml_fail(node, "%s: images of %d channel%s have none (expected %s)", what, input.c, input.c == 1 ? "" : "s",
                        coloured ? "a model input of 3 channels" : "a model input of 1 or 3 channels");
}

/* By value: 0.20 is 0.2. */
static NitiStatus read_mixup(NitiDataOptions *data, const NitiYaml *mapping) {
  static const char what[] = "data: mixup";
  const NitiYaml *node = niti_yaml_get(mapping, "mixup");
  int32_t value = -1, choice = 0;
  if (!node) return NITI_OK;
  (void)niti_yaml_millionths(&value, node, what, 0, mixup_values[NITI_MIXUP_EVEN]); /* else the choice's message holds */
  while (choice < NITI_MIXUP_EVEN && mixup_values[choice] != value) ++choice;
  if (mixup_values[choice] != value) NITI_TRY(niti_yaml_choice(&choice, node, what, mixups));
  data->mixup = (NitiMixup)choice;
  return NITI_OK;
}

NitiStatus niti_augmentation_read(NitiDataOptions *data, const NitiYaml *mapping, NitiShape input) {
  NITI_TRY(read_resized(data, mapping));
  NITI_TRY(read_cutout(data, mapping, input));
  NITI_TRY(read_strength(&data->brightness, data, mapping, "brightness", input, false));
  NITI_TRY(read_strength(&data->contrast, data, mapping, "contrast", input, false));
  NITI_TRY(read_strength(&data->saturation, data, mapping, "saturation", input, true));
  return read_mixup(data, mapping);
}

static NitiYaml *millionths(NitiYamlDocument *document, int32_t value) {
  char text[32];
  niti_yaml_decimal_text(text, sizeof text, value, PLACES);
  return niti_yaml_scalar(document, text);
}

static void put_range(NitiYamlDocument *document, NitiYaml *mapping, const char *key, const int32_t range[2]) {
  NitiYaml *list = niti_yaml_sequence(document);
  for (int i = 0; i < 2; ++i) niti_yaml_append(document, list, millionths(document, range[i]));
  niti_yaml_put(document, mapping, key, list);
}

void niti_augmentation_write(NitiYamlDocument *document, NitiYaml *mapping, const NitiDataOptions *data) {
  const struct {
    const char *key;
    int32_t strength;
  } all[] = {{"brightness", data->brightness}, {"contrast", data->contrast}, {"saturation", data->saturation}};
  if (data->resized_crop) {
    put_range(document, mapping, "scale", data->scale);
    put_range(document, mapping, "aspect", data->aspect);
  }
  if (data->cutout > 0) niti_yaml_put(document, mapping, "cutout", niti_yaml_printf(document, "%" PRId32, data->cutout));
  if (data->mixup != NITI_MIXUP_NONE) niti_yaml_put(document, mapping, "mixup", niti_yaml_scalar(document, mixups[data->mixup]));
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
    if (all[i].strength > 0) niti_yaml_put(document, mapping, all[i].key, millionths(document, all[i].strength));
  }
}
