/* The wanted region of a sequential Huffman JPEG through libjpeg-turbo, whose entropy decoder is replaced by a faster one.
 *
 * libjpeg-turbo does what it is best at: headers, inverse DCT (at 1/1 ... 1/8), chroma upsampling, colour conversion. Bits to
 * coefficients, which is two thirds of the time, is done by ../src/decode/entropy.rs. Whatever is out of the ordinary (more scans
 * than one, arithmetic coding, a warning, a bit pattern that means nothing) ends with REFUSED: the caller then takes libjpeg-turbo's
 * own way, so that damaged files are judged by one decoder only.
 *
 * Rust frames are never jumped over: its callback has returned before an error leaves by longjmp.
 */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <jerror.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 3000000 || LIBJPEG_TURBO_VERSION_NUMBER >= 4000000
#error "the head of struct jpeg_entropy_decoder below is that of libjpeg-turbo 3"
#endif

/* Head of libjpeg-turbo's private struct (src/jpegint.h). */
struct jpeg_entropy_decoder {
  void (*start_pass)(j_decompress_ptr);
  boolean (*decode_mcu)(j_decompress_ptr, JBLOCKROW *);
};

enum { DONE = 0, REFUSED = 1, ROWS_AT_ONCE = 64 };

/* Mirrors `Region` in ../src/decode/baseline.rs: pixels of the scaled picture. */
struct region {
  uint32_t left, top, width, height;
};

/* Mirrors `RawScan` in ../src/decode/baseline.rs. */
struct scan {
  const uint8_t *data;
  size_t length;
  uint32_t image_width, image_height;
  uint32_t columns, first_column, last_column; /* of MCUs */
  uint32_t restart_interval;
  uint32_t blocks; /* in an MCU */
  uint32_t components;
  uint8_t component_of[D_MAX_BLOCKS_IN_MCU];
  const uint8_t *dc_lengths[MAX_COMPS_IN_SCAN], *dc_symbols[MAX_COMPS_IN_SCAN];
  const uint8_t *ac_lengths[MAX_COMPS_IN_SCAN], *ac_symbols[MAX_COMPS_IN_SCAN];
};

struct decoder {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  jmp_buf refused;
  int (*mcu)(void *entropy, JBLOCKROW *blocks);
  void *entropy;
};

static void refuse(j_common_ptr jpeg) {
  longjmp(((struct decoder *)jpeg->client_data)->refused, 1);
}

static void warn(j_common_ptr jpeg, int level) {
  if (level < 0)
    refuse(jpeg);
}

static void say_nothing(j_common_ptr jpeg) {
  (void)jpeg;
}

static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *blocks) {
  struct decoder *decoder = jpeg->client_data;
  if (decoder->mcu(decoder->entropy, blocks))
    refuse((j_common_ptr)jpeg);
  return TRUE;
}

static int create(struct decoder *decoder) {
  decoder->jpeg.err = jpeg_std_error(&decoder->errors);
  decoder->errors.error_exit = refuse;
  decoder->errors.emit_message = warn;
  decoder->errors.output_message = say_nothing;
  decoder->jpeg.client_data = decoder; /* kept by jpeg_create_decompress */
  if (setjmp(decoder->refused))
    return REFUSED;
  jpeg_create_decompress(&decoder->jpeg);
  return DONE;
}

struct decoder *splitmask_jpeg_open(void) {
  struct decoder *decoder = calloc(1, sizeof *decoder);
  if (decoder != NULL && create(decoder) != DONE) {
    free(decoder);
    return NULL;
  }
  return decoder;
}

void splitmask_jpeg_close(struct decoder *decoder) {
  jpeg_destroy_decompress(&decoder->jpeg);
  free(decoder);
}

/* Reads the header, widens `region` to whole MCUs on its left and tells what the scan looks like. `bytes` must stay until the rows are read. */
int splitmask_jpeg_begin(struct decoder *decoder, const uint8_t *bytes, size_t length, uint32_t denominator, struct region *region,
                         struct scan *scan) {
  j_decompress_ptr jpeg = &decoder->jpeg;
  if (setjmp(decoder->refused)) {
    jpeg_abort_decompress(jpeg);
    return REFUSED;
  }
  jpeg_mem_src(jpeg, bytes, length);
  jpeg_read_header(jpeg, TRUE);
  if (jpeg->progressive_mode || jpeg->arith_code || jpeg->data_precision != 8 || (jpeg->num_components != 1 && jpeg->num_components != 3) ||
      jpeg->comps_in_scan != jpeg->num_components || jpeg_has_multiple_scans(jpeg) || jpeg->Ss != 0 || jpeg->Se != DCTSIZE2 - 1 ||
      jpeg->Ah != 0 || jpeg->Al != 0)
    refuse((j_common_ptr)jpeg);
  jpeg->scale_num = 1;
  jpeg->scale_denom = denominator;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg->out_color_space = JCS_EXT_RGB;
  jpeg_start_decompress(jpeg);

  scan->image_width = jpeg->image_width;
  scan->image_height = jpeg->image_height;
  if (region->width == 0 || region->height == 0 || region->left + region->width > jpeg->output_width ||
      region->top + region->height > jpeg->output_height)
    refuse((j_common_ptr)jpeg);
  scan->columns = jpeg->MCUs_per_row;
  scan->first_column = 0;
  scan->last_column = jpeg->MCUs_per_row - 1;
  if (region->width < jpeg->output_width) {
    JDIMENSION left = region->left, width = region->width;
    jpeg_crop_scanline(jpeg, &left, &width);
    region->left = left;
    region->width = width;
    uint32_t mcu = jpeg->min_DCT_scaled_size * (jpeg->num_components == 1 ? 1 : jpeg->max_h_samp_factor);
    scan->first_column = left / mcu;
    scan->last_column = (left + width + mcu - 1) / mcu - 1;
  }
  scan->data = jpeg->src->next_input_byte;
  scan->length = jpeg->src->bytes_in_buffer;
  scan->restart_interval = jpeg->restart_interval;
  scan->blocks = (uint32_t)jpeg->blocks_in_MCU;
  scan->components = (uint32_t)jpeg->comps_in_scan;
  for (int b = 0; b < jpeg->blocks_in_MCU && b < D_MAX_BLOCKS_IN_MCU; b++)
    scan->component_of[b] = (uint8_t)jpeg->MCU_membership[b];
  for (int c = 0; c < jpeg->comps_in_scan && c < MAX_COMPS_IN_SCAN; c++) {
    const JHUFF_TBL *dc = jpeg->dc_huff_tbl_ptrs[jpeg->cur_comp_info[c]->dc_tbl_no];
    const JHUFF_TBL *ac = jpeg->ac_huff_tbl_ptrs[jpeg->cur_comp_info[c]->ac_tbl_no];
    if (dc == NULL || ac == NULL)
      refuse((j_common_ptr)jpeg);
    scan->dc_lengths[c] = dc->bits;
    scan->dc_symbols[c] = dc->huffval;
    scan->ac_lengths[c] = ac->bits;
    scan->ac_symbols[c] = ac->huffval;
  }
  return DONE;
}

/* Decodes the rows of the region that `splitmask_jpeg_begin` gave, as RGB without gaps. */
int splitmask_jpeg_rows(struct decoder *decoder, const struct region *region, uint8_t *out, int (*mcu)(void *, JBLOCKROW *), void *entropy) {
  j_decompress_ptr jpeg = &decoder->jpeg;
  JSAMPROW rows[ROWS_AT_ONCE];
  size_t pitch = 3 * (size_t)region->width;
  if (setjmp(decoder->refused)) {
    jpeg_abort_decompress(jpeg);
    return REFUSED;
  }
  decoder->mcu = mcu;
  decoder->entropy = entropy;
  jpeg->entropy->decode_mcu = decode_mcu;
  if (region->top > 0)
    jpeg_skip_scanlines(jpeg, region->top);
  while (jpeg->output_scanline < region->top + region->height) {
    uint32_t done = jpeg->output_scanline - region->top, now = region->height - done;
    if (now > ROWS_AT_ONCE)
      now = ROWS_AT_ONCE;
    for (uint32_t r = 0; r < now; r++)
      rows[r] = out + (done + r) * pitch;
    jpeg_read_scanlines(jpeg, rows, now);
  }
  jpeg_abort_decompress(jpeg);
  return DONE;
}
