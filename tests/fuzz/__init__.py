"""A campaign of damaged and hostile inputs against the commands; see campaign.py."""
