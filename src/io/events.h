/* TensorBoard event files: TFRecord frames around protocol buffers (tensorboard.proto). Floating point appears here, as in all
 * printing, and only here. */
#ifndef NITI_IO_EVENTS_H
#define NITI_IO_EVENTS_H

#include "platform/status.h"

enum { NITI_EVENTS_BINS = 255 }; /* mantissas -127..127 */

typedef struct NitiEvents NitiEvents;

/* Creates DIR/events.out.tfevents.TIME.HOST.niti, a name that sorts after those already there. */
NitiStatus niti_events_open(NitiEvents **out, const char *dir);
/* Marks the start of a session at `step`: TensorBoard then discards earlier files' events from there on. For a resumed run. */
NitiStatus niti_events_start(NitiEvents *events, int64_t step);
NitiStatus niti_events_scalar(NitiEvents *events, const char *tag, int64_t step, double value);
/* The scalar numerator / denominator; denominator 0 writes nothing. */
NitiStatus niti_events_ratio(NitiEvents *events, const char *tag, int64_t step, int64_t numerator, int64_t denominator);
/* counts[i] values of mantissa i - 127, that is (i - 127) * 2^exponent. Counts that are all 0 write nothing. */
NitiStatus niti_events_histogram(NitiEvents *events, const char *tag, int64_t step, const int64_t counts[NITI_EVENTS_BINS],
                                 int32_t exponent);
/* An image: the bytes of a PNG file of this size and number of channels. */
NitiStatus niti_events_image(NitiEvents *events, const char *tag, int64_t step, const uint8_t *png, size_t size, int32_t width,
                             int32_t height, int32_t channels);
/* Markdown for the tab "Text". */
NitiStatus niti_events_text(NitiEvents *events, const char *tag, int64_t step, const char *text);

/* One of a run's settings for the tab "HParams". */
typedef struct NitiSetting {
  char *name, *value; /* UTF-8 */
  bool plain;         /* a decimal number, or true or false, is shown as one; else every value is text */
} NitiSetting;
/* The run's settings, once. */
NitiStatus niti_events_settings(NitiEvents *events, const NitiSetting *settings, size_t count);
/* The run has ended well: "HParams" shows that. */
NitiStatus niti_events_success(NitiEvents *events);
/* Passes everything written so far to the system; only this and close are certain to report a full disk. */
NitiStatus niti_events_flush(NitiEvents *events);
/* Flushes and closes; NULL is accepted. The handle is released even if that fails. */
NitiStatus niti_events_close(NitiEvents *events);

/* CRC-32C (Castagnoli) of bytes. */
uint32_t niti_crc32c(const void *data, size_t size);

#endif
