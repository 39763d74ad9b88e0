/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a request as long as its kind says? libfuse reads headers, names and data without asking how much came; what passes here has them. Sizes are those of protocol 7.12 and later; for an
 * earlier kernel libfuse looks at earlier bytes, which then are there too.
 */
#include "fuse/fuse_priv.h"

struct shape {
	uint16_t head;  /* bytes of the operation's header */
	uint16_t names; /* strings behind it */
};

static const struct shape shapes[] = {
	[FUSE_LOOKUP] = { 0, 1 },
	[FUSE_FORGET] = { sizeof(struct fuse_forget_in), 0 },
	[FUSE_GETATTR] = { sizeof(struct fuse_getattr_in), 0 },
	[FUSE_SETATTR] = { sizeof(struct fuse_setattr_in), 0 },
	[FUSE_SYMLINK] = { 0, 2 },
	[FUSE_MKNOD] = { sizeof(struct fuse_mknod_in), 1 },
	[FUSE_MKDIR] = { sizeof(struct fuse_mkdir_in), 1 },
	[FUSE_UNLINK] = { 0, 1 },
	[FUSE_RMDIR] = { 0, 1 },
	[FUSE_RENAME] = { sizeof(struct fuse_rename_in), 2 },
	[FUSE_LINK] = { sizeof(struct fuse_link_in), 1 },
	[FUSE_OPEN] = { sizeof(struct fuse_open_in), 0 },
	[FUSE_READ] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_WRITE] = { sizeof(struct fuse_write_in), 0 },
	[FUSE_RELEASE] = { sizeof(struct fuse_release_in), 0 },
	[FUSE_FSYNC] = { sizeof(struct fuse_fsync_in), 0 },
	[FUSE_SETXATTR] = { FUSE_COMPAT_SETXATTR_IN_SIZE, 1 },
	[FUSE_GETXATTR] = { sizeof(struct fuse_getxattr_in), 1 },
	[FUSE_LISTXATTR] = { sizeof(struct fuse_getxattr_in), 0 },
	[FUSE_REMOVEXATTR] = { 0, 1 },
	[FUSE_FLUSH] = { sizeof(struct fuse_flush_in), 0 },
	[FUSE_INIT] = { offsetof(struct fuse_init_in, flags) + sizeof(uint32_t), 0 },
	[FUSE_OPENDIR] = { sizeof(struct fuse_open_in), 0 },
	[FUSE_READDIR] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_RELEASEDIR] = { sizeof(struct fuse_release_in), 0 },
	[FUSE_FSYNCDIR] = { sizeof(struct fuse_fsync_in), 0 },
	[FUSE_GETLK] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_SETLK] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_SETLKW] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_ACCESS] = { sizeof(struct fuse_access_in), 0 },
	[FUSE_CREATE] = { sizeof(struct fuse_create_in), 1 },
	[FUSE_INTERRUPT] = { sizeof(struct fuse_interrupt_in), 0 },
	[FUSE_BMAP] = { sizeof(struct fuse_bmap_in), 0 },
	[FUSE_IOCTL] = { sizeof(struct fuse_ioctl_in), 0 },
	[FUSE_POLL] = { sizeof(struct fuse_poll_in), 0 },
	[FUSE_NOTIFY_REPLY] = { sizeof(struct fuse_notify_retrieve_in), 0 },
	[FUSE_BATCH_FORGET] = { sizeof(struct fuse_batch_forget_in), 0 },
	[FUSE_FALLOCATE] = { sizeof(struct fuse_fallocate_in), 0 },
	[FUSE_READDIRPLUS] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_RENAME2] = { sizeof(struct fuse_rename2_in), 2 },
	[FUSE_LSEEK] = { sizeof(struct fuse_lseek_in), 0 },
	[FUSE_COPY_FILE_RANGE] = { sizeof(struct fuse_copy_file_range_in), 0 },
};

/* What follows the header: strings end within it, and as many bytes as the header counts are there. */
static bool rest_fits(uint32_t opcode, unsigned names, const uint8_t *arg, const uint8_t *rest, size_t bytes)
{
	for (; names; names--) {
		const uint8_t *end = memchr(rest, 0, bytes);

		if (!end)
			return false;
		bytes -= (size_t)(end + 1 - rest);
		rest = end + 1;
	}
	switch (opcode) {
	case FUSE_WRITE:
		return ((const struct fuse_write_in *)(const void *)arg)->size <= bytes;
	case FUSE_SETXATTR:
		return ((const struct fuse_setxattr_in *)(const void *)arg)->size <= bytes;
	case FUSE_IOCTL:
		return ((const struct fuse_ioctl_in *)(const void *)arg)->in_size <= bytes;
	case FUSE_BATCH_FORGET:
		return ((const struct fuse_batch_forget_in *)(const void *)arg)->count <= bytes / sizeof(struct fuse_forget_one);
	case FUSE_INIT:
		return !(((const struct fuse_init_in *)(const void *)arg)->flags & FUSE_INIT_EXT) ||
		       bytes >= sizeof(struct fuse_init_in) - shapes[FUSE_INIT].head;
	default:
		return true;
	}
}

bool td_request_fits(const struct td_session *s, const struct fuse_in_header *in, size_t bytes)
{
	const uint8_t *arg = (const uint8_t *)(in + 1);
	struct shape shape;

	bytes -= sizeof(*in);
	if (in->opcode >= ARRAY_SIZE(shapes))
		return true; /* not libfuse's */
	shape = shapes[in->opcode];
	if (in->opcode == FUSE_SETXATTR && (s->init_flags & FUSE_SETXATTR_EXT))
		shape.head = sizeof(struct fuse_setxattr_in);
	return bytes >= shape.head && rest_fits(in->opcode, shape.names, arg, arg + shape.head, bytes - shape.head);
}
