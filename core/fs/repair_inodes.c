/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of inodes: those that cannot be read, those that contradict what they hold, and those that are missing while names or content are there
 *
 * All of these are *suspects*. They are gathered from INODES, DIRENTS and EXTENTS, with what an entry says of them; then each is rebuilt of what can be found, or its key goes. Witnesses of
 * its type, the stronger first: its record and an entry that agree, entries or extents of its own, its record, an entry that leads to it.
 */
#include "data/extent.h"
#include "fs/vfs_repair_priv.h"

struct suspect {
	uint64_t inum : 40, type : 4, flags : 20;
	uint64_t parent, parent_offset; /* of the entry, if there is one */
};
enum {
	SUSPECT_BAD = 1,   /* its key cannot be read, or contradicts its content */
	SUSPECT_NAMED = 2, /* an entry leads to it */
};
_Static_assert(sizeof(struct suspect) == 24, "memory of a repair");

struct suspects {
	struct suspect *list;
	size_t nr, max, room;
	uint64_t from, to; /* of this turn, inclusive */
};

static int cmp_suspects(const void *pa, const void *pb)
{
	const struct suspect *a = pa, *b = pb;

	if (a->inum != b->inum)
		return a->inum < b->inum ? -1 : 1;
	return (int)(b->flags & SUSPECT_NAMED) - (int)(a->flags & SUSPECT_NAMED);
}

/* One row an inode: flags of all, names of the first. */
static void merge(struct suspects *s)
{
	size_t to = 0;

	if (!s->nr)
		return;
	qsort(s->list, s->nr, sizeof(s->list[0]), cmp_suspects);
	for (size_t i = 1; i < s->nr; i++) {
		if (s->list[i].inum == s->list[to].inum)
			s->list[to].flags |= s->list[i].flags;
		else
			s->list[++to] = s->list[i];
	}
	s->nr = to + 1;
}

static int add_suspect(struct suspects *s, const struct suspect *suspect)
{
	if (suspect->inum < s->from || suspect->inum > s->to)
		return 0;
	if (s->nr == s->room && s->room < s->max) {
		const size_t room = ter_min(s->max, s->room * 2 + 1024);
		struct suspect *list = ter_realloc_array(s->list, room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		s->list = list;
		s->room = room;
	}
	if (s->nr == s->room) {
		merge(s);
		if (s->nr > s->room / 2) { /* the rest is another turn's */
			s->nr = s->room / 2;
			s->to = s->list[s->nr - 1].inum;
			if (suspect->inum > s->to)
				return 0;
		}
	}
	s->list[s->nr++] = *suspect;
	return 0;
}

/* --- content --- */

struct content {
	bool entries;
	unsigned keys, data_keys, inline_keys; /* of extents; data: neither inline nor damaged beyond use */
	uint32_t text_bytes;                   /* of the first, when it is inline */
	uint64_t end_bytes;
	bool text;                             /* the first key could be a symbolic link's target */
};

static int take_content(void *arg, const struct ter_key *key)
{
	struct content *c = arg;

	c->keys++;
	if (key->type == TER_KEY_INLINE_DATA) {
		c->inline_keys++;
		if (c->keys == 1) {
			c->text_bytes = key->val_bytes;
			c->text = key->val_bytes && key->val_bytes <= TER_SYMLINK_MAX && !memchr(key->val, '\0', key->val_bytes);
		}
		c->end_bytes = ter_max(c->end_bytes, (ter_key_start(key) << TER_SECTOR_SHIFT) + key->val_bytes);
	} else if (key->type == TER_KEY_EXTENT || key->type == TER_KEY_ERROR) {
		c->data_keys++;
		c->end_bytes = ter_max(c->end_bytes, key->pos.offset << TER_SECTOR_SHIFT);
	}
	return 0;
}

static int read_content(struct ter_fixer *f, uint64_t inum, struct content *ret)
{
	int r;

	*ret = (struct content){ 0 };
	r = ter_btree_scan(f->vfs->config.btrees, TER_BTREE_EXTENTS, TER_POS(inum, 0, 0), TER_POS(inum, UINT64_MAX, UINT32_MAX), 0, take_content, ret, NULL);
	if (r < 0)
		return r;
	ret->end_bytes = ter_min(ret->end_bytes, (uint64_t)TER_FILE_SIZE_MAX);
	r = ter_fix_has_keys(f, TER_BTREE_DIRENTS, inum);
	ret->entries = r == 1;
	return r;
}

/* Does what an inode says of its type agree with what it holds? */
static int contradicts(struct ter_fixer *f, uint64_t inum, const struct ter_inode_attr *attr)
{
	struct content c;
	int r;

	switch (attr->mode & S_IFMT) {
	case S_IFDIR:
		r = ter_fix_has_keys(f, TER_BTREE_EXTENTS, inum);
		return r <= 0 ? r : (r = ter_fix_has_keys(f, TER_BTREE_DIRENTS, inum)) < 0 ? r : !r;
	case S_IFLNK:
		r = read_content(f, inum, &c);
		return r < 0 ? r : !c.text || c.entries;
	default:
		r = ter_fix_has_keys(f, TER_BTREE_DIRENTS, inum);
		if (r || S_ISREG(attr->mode))
			return r;
		return ter_fix_has_keys(f, TER_BTREE_EXTENTS, inum);
	}
}

/* --- gathering --- */

static int gather_inode(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	const struct suspect suspect = { .inum = key->pos.inode, .flags = SUSPECT_BAD };
	struct ter_inode_attr attr;
	int r;

	if (!ter_fix_pos_valid(key->pos) || key->pos.offset) {
		r = ter_repair_want(f->repair, "inodes", "An inode stands at %" PRIu64 ":%" PRIu64 ", where none can be: it is removed.", key->pos.inode,
				    key->pos.offset);
		if (r > 0)
			r = ter_fix_delete_key(f, TER_BTREE_INODES, key->pos);
		return r < 0 ? r : 0;
	}
	r = ter_inode_decode(key, &attr) < 0 ? 1 : contradicts(f, key->pos.inode, &attr);
	if (r >= 0 && key->pos.inode == TER_ROOT_INUM && !r)
		r = !ter_attr_is_dir(&attr) || !attr.nlink;
	return r <= 0 ? r : add_suspect(arg, &suspect);
}

static int suspect_missing(struct ter_fixer *f, struct suspects *s, const struct suspect *suspect)
{
	struct ter_inode_attr attr;
	int r;

	if (!ter_fix_inum_valid(suspect->inum))
		return 0;
	r = ter_fix_read_inode(f, suspect->inum, &attr);
	if (r == -ESTALE || r == -EUCLEAN)
		return add_suspect(s, suspect);
	return r < 0 ? r : 0;
}

static int gather_entries(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct suspects *s = arg;
	struct ter_dent dent;
	uint32_t at = 0;
	int r;

	if (!ter_fix_pos_valid(key->pos) || ter_dirents_check(key) < 0)
		return 0;
	r = suspect_missing(f, s, &(struct suspect){ .inum = key->pos.inode });
	while (r >= 0 && ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0) {
		const struct suspect suspect = {
			.inum = dent.inum, .type = dent.type, .flags = SUSPECT_NAMED, .parent = key->pos.inode, .parent_offset = key->pos.offset,
		};
		struct ter_inode_attr attr;

		r = ter_fix_read_inode(f, dent.inum, &attr);
		if (r == -ESTALE || r == -EUCLEAN)
			r = add_suspect(s, &suspect);
	}
	return r < 0 ? r : 0;
}

/* Readable inodes that contradict their content are told what their entry says of them as well. */
static int gather_names(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct suspects *s = arg;
	struct ter_dent dent;
	uint32_t at = 0;

	(void)f;
	if (!ter_fix_pos_valid(key->pos) || ter_dirents_check(key) < 0)
		return 0;
	while (ter_dirents_next(key->val, key->val_bytes, &at, &dent) > 0) {
		const struct suspect want = { .inum = dent.inum };
		struct suspect *found = s->nr ? bsearch(&want, s->list, s->nr, sizeof(want), cmp_suspects) : NULL;

		if (!found || found->flags & SUSPECT_NAMED)
			continue;
		found->flags |= SUSPECT_NAMED;
		found->type = dent.type;
		found->parent = key->pos.inode;
		found->parent_offset = key->pos.offset;
	}
	return 0;
}

static int gather_extent(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	if (!ter_fix_pos_valid(key->pos))
		return 0;
	return suspect_missing(f, arg, &(struct suspect){ .inum = key->pos.inode });
}

static int gather(struct ter_fixer *f, struct suspects *s)
{
	const struct suspect root = { .inum = TER_ROOT_INUM };
	int r;

	s->nr = 0;
	r = ter_fix_each(f, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, gather_inode, s);
	if (r >= 0)
		r = ter_fix_each(f, TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, gather_entries, s);
	if (r >= 0)
		r = ter_fix_each(f, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, gather_extent, s);
	if (r >= 0)
		r = suspect_missing(f, s, &root);
	if (r < 0)
		return r;
	merge(s);
	while (s->nr && s->list[s->nr - 1].inum > s->to)
		s->nr--;
	return s->nr ? ter_fix_each(f, TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, gather_names, s) : 0;
}

/* --- rebuilding --- */

struct rebuild {
	struct ter_fixer *f;
	const struct suspect *suspect;
	struct content content;
	struct ter_inode_attr attr; /* what can be kept of the record, then what it becomes */
	bool there, salvaged;       /* there: a key; salvaged: with fields that are worth something */
	bool remove;
};

/* Field by field what the record says, where it can be. */
static void salvage(const struct ter_key *key, struct rebuild *b)
{
	const struct ter_inode_disk *disk = key->val;
	struct ter_inode_attr *a = &b->attr;

	if (key->type != TER_KEY_INODE || key->val_bytes < sizeof(*disk))
		return;
	b->salvaged = true;
	a->mode = ter_le32_get(disk->mode) & (S_IFMT | 07777);
	a->uid = ter_le32_get(disk->uid);
	a->gid = ter_le32_get(disk->gid);
	a->rdev = ter_le32_get(disk->rdev);
	a->nlink = ter_le32_get(disk->nlink);
	a->nlink = a->nlink > TER_LINK_MAX + 2 ? 1 : a->nlink;
	a->flags = ter_le32_get(disk->flags) & (TER_INODE_FLAGS_SETTABLE | TER_IFLAGS);
	a->project = ter_le32_get(disk->project);
	a->size = ter_le64_get(disk->size);
	a->sectors = ter_le64_get(disk->sectors);
	a->atime_ns = (int64_t)ter_le64_get(disk->atime_ns);
	a->mtime_ns = (int64_t)ter_le64_get(disk->mtime_ns);
	a->ctime_ns = (int64_t)ter_le64_get(disk->ctime_ns);
	a->btime_ns = (int64_t)ter_le64_get(disk->btime_ns);
	a->parent_inum = ter_le64_get(disk->parent_inum);
	a->parent_offset = ter_le64_get(disk->parent_offset);
	if (a->parent_inum > TER_INUM_MAX)
		a->parent_inum = a->parent_offset = 0;
	if (a->size > (uint64_t)TER_FILE_SIZE_MAX)
		a->size = UINT64_MAX; /* not known */
	if (a->sectors > (uint64_t)TER_FILE_SIZE_MAX >> TER_SECTOR_SHIFT)
		a->sectors = 0; /* counted later */
}

static bool type_known(uint32_t type)
{
	return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK || type == S_IFCHR || type == S_IFBLK;
}

/* 0: nothing tells. */
static uint32_t decide_type(const struct rebuild *b)
{
	const struct content *c = &b->content;
	const uint32_t says = b->salvaged && type_known(b->attr.mode & S_IFMT) ? b->attr.mode & S_IFMT : 0;
	const uint32_t named = b->suspect->flags & SUSPECT_NAMED ? (uint32_t)b->suspect->type << 12 : 0;
	const bool files = says == S_IFREG || (says != S_IFDIR && named != S_IFDIR);

	if (b->suspect->inum == TER_ROOT_INUM)
		return S_IFDIR;
	if (says && says == named && says != S_IFLNK)
		return says; /* content that neither knows of is astray */
	if (c->entries && !(c->keys && files))
		return S_IFDIR;
	if (c->keys) {
		const bool text = c->keys == 1 && c->text;

		if (says == S_IFREG || (says == S_IFLNK && text))
			return says;
		return named == S_IFLNK && text ? S_IFLNK : S_IFREG;
	}
	if (says && says != S_IFLNK)
		return says;
	return named != S_IFLNK && b->there ? named : 0; /* a missing inode without content is not invented */
}

/* What the type allows, and what the content says of it. */
static void conform(struct rebuild *b, uint32_t type)
{
	struct ter_inode_attr *a = &b->attr;
	const int64_t now = ter_vfs_now(b->f->vfs);

	if (!b->salvaged)
		*a = (struct ter_inode_attr){ .mode = type == S_IFDIR ? 0700 : 0600, .nlink = 1, .size = UINT64_MAX,
					      .atime_ns = now, .mtime_ns = now, .ctime_ns = now, .btime_ns = now };
	if (b->suspect->inum == TER_ROOT_INUM && (!b->salvaged || !S_ISDIR(a->mode)))
		a->mode = 0755;
	a->mode = (a->mode & 07777) | type;
	if (type != S_IFCHR && type != S_IFBLK)
		a->rdev = 0;
	if (type != S_IFREG)
		a->sectors = 0;
	switch (type) {
	case S_IFREG:
		if (a->size == UINT64_MAX)
			a->size = b->content.end_bytes;
		break;
	case S_IFLNK:
		a->size = b->content.text_bytes;
		break;
	case S_IFDIR:
		a->size = a->size == UINT64_MAX ? 0 : a->size; /* counted later, as are links */
		a->nlink = ter_max(a->nlink, 2u);
		if (b->suspect->inum == TER_ROOT_INUM) {
			a->parent_inum = TER_ROOT_INUM;
			a->parent_offset = 0;
		} else if (!a->parent_inum && b->suspect->flags & SUSPECT_NAMED) {
			a->parent_inum = b->suspect->parent;
			a->parent_offset = b->suspect->parent_offset;
		}
		break;
	default:
		a->size = 0;
	}
}

static int rebuild_fn(struct ter_trans *trans, void *arg)
{
	struct rebuild *b = arg;
	const uint64_t inum = b->suspect->inum;
	const int64_t minus_one = -1;
	struct ter_key old;
	int r;

	if (!b->remove) {
		r = ter_fix_stage_new(trans, inum, &b->attr);
		if (r >= 0 && inum == TER_ROOT_INUM)
			r = ter_fix_stage_unmark(trans, inum);
		return r;
	}
	r = ter_trans_get(trans, TER_BTREE_INODES, ter_fix_pos(inum), &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = ter_trans_update(trans, TER_BTREE_INODES, old.pos, &old, NULL);
	if (r >= 0)
		r = ter_trans_add(trans, ter_counter_inodes(), &minus_one, 1);
	return r < 0 ? r : ter_fix_stage_unmark(trans, inum);
}

static int read_record(struct rebuild *b)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, b->f->vfs->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_INODES, ter_fix_pos(b->suspect->inum), &key);
	b->there = r >= 0;
	if (r >= 0)
		salvage(&key, b);
	ter_trans_exit(&trans);
	return r == -ENOENT ? 0 : r;
}

static int want_rebuild(struct rebuild *b, uint32_t type)
{
	const uint64_t inum = b->suspect->inum;
	struct ter_repair *repair = b->f->repair;

	if (inum == TER_ROOT_INUM)
		return ter_repair_want(repair, "inodes", "There is no root directory: it is made anew.");
	if (b->remove)
		return ter_repair_want(repair, "inodes", "Inode %" PRIu64 " is damaged, and nothing tells what it was: it is removed.", inum);
	if (!b->there)
		return ter_repair_want(repair, "inodes", "Inode %" PRIu64 " does not exist, but has %s: it is made anew.", inum,
				       type == S_IFDIR ? "directory entries" : "data");
	return ter_repair_want(repair, "inodes", "Inode %" PRIu64 " is damaged: it is rebuilt as %s.", inum,
			       type == S_IFDIR ? "a directory" : type == S_IFREG ? "a file" : type == S_IFLNK ? "a symbolic link" : "a special file");
}

static int fix_suspect(struct ter_fixer *f, const struct suspect *suspect)
{
	struct rebuild b = { .f = f, .suspect = suspect };
	uint32_t type;
	int r;

	r = read_record(&b);
	if (r >= 0)
		r = read_content(f, suspect->inum, &b.content);
	if (r < 0)
		return r;
	type = decide_type(&b);
	if ((type == S_IFCHR || type == S_IFBLK) && !b.salvaged)
		type = 0; /* of which device is not known */
	b.remove = !type;
	if (b.remove && !b.there)
		return 0; /* told with its entry, which goes */
	r = want_rebuild(&b, type);
	if (r <= 0)
		return r;
	if (!b.remove) {
		conform(&b, type);
		ter_inum_raise(f->vfs, suspect->inum);
	}
	r = ter_fix_run(f, rebuild_fn, &b);
	return r < 0 ? r : 0;
}

int ter_fix_inodes(struct ter_fixer *f)
{
	struct suspects s = { .from = 1, .to = TER_INUM_MAX, .max = ter_max(f->memory_bytes / 2 / sizeof(struct suspect), (size_t)4) };
	int r;

	do {
		s.to = TER_INUM_MAX;
		r = gather(f, &s);
		for (size_t i = 0; r >= 0 && i < s.nr; i++)
			r = fix_suspect(f, &s.list[i]);
		s.from = s.to + 1;
	} while (r >= 0 && s.to < TER_INUM_MAX);
	free(s.list);
	return r;
}
