/* Inside src/data: which way up a camera held an image, and turning the pixels so. */
#ifndef NITI_DATA_EXIF_H
#define NITI_DATA_EXIF_H

#include "data/image.h"

/* The orientation, 1 to 8 (EXIF 2.32, tag 0x0112), in a TIFF structure of `size` bytes: what JPEG's APP1 segment holds after
 * "Exif\0\0", and PNG's eXIf chunk from its first byte. 1, as stored, where none is noted or the note is malformed: viewers show
 * such images too. Looks at nothing beyond `size`, whatever the bytes say. */
int niti_exif_orientation(const uint8_t *tiff, size_t size);

/* Turns and mirrors an image so that orientation 1 is left; 5 to 8 exchange height and width. `path` is for messages. On failure
 * (memory) the image is as it was. */
NitiStatus niti_image_turn(NitiImage *image, int orientation, const char *path);

#endif
