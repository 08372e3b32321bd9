/* Internal to recipes: the keys of `data` that change training images beyond crop and flip. */
#ifndef NITI_TRAIN_AUGMENTATION_H
#define NITI_TRAIN_AUGMENTATION_H

#include "config/yaml.h"
#include "data/dataset.h"

/* Their names, in read_data's order of keys. */
#define NITI_AUGMENTATION_KEYS "scale", "aspect", "cutout", "brightness", "contrast", "saturation", "mixup"

/* Reads them from the recipe's `data`, whose crop, pad and type have been read; input: the network's. What has no meaning is an
 * error: colours or resized crops of values that are no pixels, a square larger than the window. */
NitiStatus niti_augmentation_read(NitiDataOptions *data, const NitiYaml *mapping, NitiShape input);
/* Writes those that are in use. */
void niti_augmentation_write(NitiYamlDocument *document, NitiYaml *mapping, const NitiDataOptions *data);

#endif
